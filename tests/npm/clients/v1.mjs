// The TypeScript SDK v1, which knows the legacy era only: over HTTP and over stdio.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

import { tell } from './story.mjs';

let version;

await tell({
    connect: async ({ url, command }) => {
        const client = new Client({ name: 'v1', version: '1' });
        const [program, ...args] = command ?? [];
        const transport = url
            ? new StreamableHTTPClientTransport(new URL(url))
            : new StdioClientTransport({ command: program, args });
        // The SDK tells its transport, and nobody else, what was negotiated.
        const told = transport.setProtocolVersion?.bind(transport);
        transport.setProtocolVersion = (negotiated) => {
            version = negotiated;
            told?.(negotiated);
        };
        await client.connect(transport);
        return client;
    },
    callTool: (client, params, options) => client.callTool(params, undefined, options),
    versionOf: () => version,
});
