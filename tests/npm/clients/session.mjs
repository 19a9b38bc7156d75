// A legacy client that is asked, told and cut off: the TypeScript SDK v1 over Streamable HTTP or HTTP+SSE.
//
// What it has seen is told in one JSON line on stdout; a line `holding` before that says that its connections may be cut.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import {
    CreateMessageRequestSchema,
    ElicitRequestSchema,
    ListRootsRequestSchema,
    LoggingMessageNotificationSchema,
    ResourceUpdatedNotificationSchema,
} from '@modelcontextprotocol/sdk/types.js';

const { asking, holding, sse } = JSON.parse(process.argv[2]);
const seen = {};

const capabilities = { elicitation: {}, sampling: {}, roots: {} };

async function connect(url) {
    const client = new Client({ name: 'v1', version: '1' }, { capabilities });
    client.setRequestHandler(ElicitRequestSchema, () => ({ action: 'accept', content: { name: 'Ada' } }));
    client.setRequestHandler(CreateMessageRequestSchema, () => ({
        role: 'assistant',
        model: 'm',
        content: { type: 'text', text: 'Paris' },
    }));
    client.setRequestHandler(ListRootsRequestSchema, () => ({ roots: [{ uri: 'file:///a' }] }));
    const transport = sse ? new SSEClientTransport(new URL(url)) : new StreamableHTTPClientTransport(new URL(url));
    await client.connect(transport);
    return { client, transport };
}

async function text(client, name, args = {}, options = {}) {
    const result = await client.callTool({ name, arguments: args }, undefined, options);
    return result.content[0].text;
}

/** The next notification of a kind. */
function next(client, schema) {
    return new Promise((resolve) => client.setNotificationHandler(schema, ({ params }) => resolve(params)));
}

const { client, transport } = await connect(asking);
const told = [];
seen.elicited = await text(client, 'elicit', {}, { onprogress: ({ progress }) => told.push(progress) });
seen.told = told;
for (const tool of ['sample', 'roots', 'two_rounds', 'all_at_once', 'put_off']) {
    seen[tool] = await text(client, tool);
}

await client.setLoggingLevel('debug');
const line = next(client, LoggingMessageNotificationSchema);
seen.logged = await text(client, 'log');
seen.line = (await line).data;

await client.subscribeResource({ uri: 'test://a' });
const updated = next(client, ResourceUpdatedNotificationSchema);
await text(client, 'touch', { uri: 'test://a' });
seen.updated = (await updated).uri;

if (!sse) {
    const held = await connect(holding);
    // The first event by which the call can be taken up again.
    let isToldOf = false;
    const onresumptiontoken = () => {
        if (!isToldOf) process.stdout.write('holding\n');
        isToldOf = true;
    };
    seen.released = await text(held.client, 'hold', {}, { onresumptiontoken });
    await held.transport.terminateSession();
    await held.client.close();
    await transport.terminateSession();
}
await client.close();
process.stdout.write(`${JSON.stringify(seen)}\n`);
