// The official TypeScript client v2 at every door and in both eras. It brings no WebSocket, so that is ours.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';

import { ANSWERS, tell } from './features.mjs';
import { WebSocketTransport } from './websocket.mjs';

const MODES = { modern: { pin: '2026-07-28' }, auto: 'auto', legacy: 'legacy' };

function transportOf({ http, ws, command }) {
    if (http) return new StreamableHTTPClientTransport(new URL(http));
    if (ws) return new WebSocketTransport(new URL(ws));
    const [program, ...args] = command;
    return new StdioClientTransport({ command: program, args });
}

async function connect(settings, capabilities, onerror) {
    const options = { capabilities, versionNegotiation: { mode: MODES[settings.era] } };
    const client = new Client({ name: 'v2', version: '1' }, options);
    client.onerror = onerror;
    for (const [method, answer] of Object.entries(ANSWERS)) {
        if (!(method.split('/')[0] in capabilities)) continue;
        client.setRequestHandler(method, ({ params }) => answer(params));
    }
    await client.connect(transportOf(settings));
    return client;
}

const isModern = (client) => client.getProtocolEra() === 'modern';

await tell(connect, {
    versionOf: (client) => client.getNegotiatedProtocolVersion(),
    call: (client, params, options) => client.callTool(params, options),
    onNotice: (client, method, handler) => client.setNotificationHandler(method, ({ params }) => handler(params)),
    wantLog: async (client) => {
        if (isModern(client)) return { _meta: { 'io.modelcontextprotocol/logLevel': 'info' } };
        await client.setLoggingLevel('info');
        return {};
    },
    watch: async (client, uri) => {
        if (isModern(client)) {
            const lists = { toolsListChanged: true, promptsListChanged: true };
            const subscription = await client.listen(uri === undefined ? lists : { resourceSubscriptions: [uri] });
            return async () => {
                await subscription.close();
                return subscription.closed;
            };
        }
        if (uri === undefined) return async () => {};
        await client.subscribeResource({ uri });
        return async () => {
            await client.unsubscribeResource({ uri });
            return 'local';
        };
    },
});
