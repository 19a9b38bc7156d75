// The TypeScript SDK v1 at every door, with the transports that it brings.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { WebSocketClientTransport } from '@modelcontextprotocol/sdk/client/websocket.js';
import {
    CreateMessageRequestSchema,
    ElicitRequestSchema,
    ListRootsRequestSchema,
    LoggingMessageNotificationSchema,
    PromptListChangedNotificationSchema,
    ResourceUpdatedNotificationSchema,
    ToolListChangedNotificationSchema,
} from '@modelcontextprotocol/sdk/types.js';

import { ANSWERS, tell } from './features.mjs';

const QUESTIONS = {
    'elicitation/create': ElicitRequestSchema,
    'sampling/createMessage': CreateMessageRequestSchema,
    'roots/list': ListRootsRequestSchema,
};

const NOTICES = {
    'notifications/message': LoggingMessageNotificationSchema,
    'notifications/resources/updated': ResourceUpdatedNotificationSchema,
    'notifications/tools/list_changed': ToolListChangedNotificationSchema,
    'notifications/prompts/list_changed': PromptListChangedNotificationSchema,
};

let version;

function transportOf({ http, sse, ws, command }) {
    if (http) return new StreamableHTTPClientTransport(new URL(http));
    if (sse) return new SSEClientTransport(new URL(sse));
    if (ws) return new WebSocketClientTransport(new URL(ws));
    const [program, ...args] = command;
    return new StdioClientTransport({ command: program, args });
}

async function connect(settings, capabilities, onerror) {
    const client = new Client({ name: 'v1', version: '1' }, { capabilities });
    client.onerror = onerror;
    for (const [method, schema] of Object.entries(QUESTIONS)) {
        if (!(method.split('/')[0] in capabilities)) continue;
        client.setRequestHandler(schema, ({ params }) => ANSWERS[method](params));
    }
    const transport = transportOf(settings);
    // The SDK tells its transport, and nobody else, what was negotiated.
    const told = transport.setProtocolVersion?.bind(transport);
    transport.setProtocolVersion = (negotiated) => {
        version = negotiated;
        told?.(negotiated);
    };
    await client.connect(transport);
    return client;
}

await tell(connect, {
    versionOf: () => version,
    call: (client, params, options) => client.callTool(params, undefined, options),
    onNotice: (client, method, handler) =>
        client.setNotificationHandler(NOTICES[method], ({ params }) => handler(params)),
    wantLog: async (client) => {
        await client.setLoggingLevel('info');
        return {};
    },
    watch: async (client, uri) => {
        // Lists are told of from the handshake on.
        if (uri === undefined) return async () => {};
        await client.subscribeResource({ uri });
        return async () => {
            await client.unsubscribeResource({ uri });
            return 'local';
        };
    },
});
