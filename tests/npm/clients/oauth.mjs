// The official TypeScript clients with their own authorization: they find the issuer from the platform's refusal, ask it for a token, and
// ask for a better one when a tool needs more. Prints what each call came to as one JSON array.

import { Client as ClientV1 } from '@modelcontextprotocol/sdk/client/index.js';
import { ClientCredentialsProvider as ProviderV1 } from '@modelcontextprotocol/sdk/client/auth-extensions.js';
import { StreamableHTTPClientTransport as TransportV1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { Client, ClientCredentialsProvider, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const { url, sdk, era, issuer, id, secret, scope, tools } = JSON.parse(process.argv[2]);
const credentials = { clientId: id, clientSecret: secret, expectedIssuer: issuer };
const seen = [];

let client;
if (sdk === 'v1') {
    client = new ClientV1({ name: 'v1', version: '1' });
    // Without a user this one asks for what it was configured with, whatever a challenge says.
    const authProvider = new ProviderV1({ ...credentials, scope });
    await client.connect(new TransportV1(new URL(url), { authProvider }));
} else {
    const mode = era === 'modern' ? { pin: '2026-07-28' } : 'legacy';
    client = new Client({ name: 'v2', version: '1' }, { versionNegotiation: { mode } });
    const authProvider = new ClientCredentialsProvider(credentials);
    await client.connect(new StreamableHTTPClientTransport(new URL(url), { authProvider }));
}
for (const name of tools) {
    const result = await client.callTool({ name, arguments: {} });
    seen.push(result.structuredContent ?? null);
}
console.log(JSON.stringify(seen));
await client.close();
