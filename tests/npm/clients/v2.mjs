// The official TypeScript client v2: both eras, over HTTP and over stdio.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';

import { tell } from './story.mjs';

const MODES = { modern: { pin: '2026-07-28' }, auto: 'auto', legacy: 'legacy' };

await tell({
    connect: async ({ url, command, era }) => {
        const client = new Client({ name: 'v2', version: '1' }, { versionNegotiation: { mode: MODES[era] } });
        const [program, ...args] = command ?? [];
        await client.connect(
            url ? new StreamableHTTPClientTransport(new URL(url)) : new StdioClientTransport({ command: program, args })
        );
        return client;
    },
    callTool: (client, params, options) => client.callTool(params, options),
    versionOf: (client) => client.getNegotiatedProtocolVersion(),
});
