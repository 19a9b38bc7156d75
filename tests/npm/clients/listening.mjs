// The official TypeScript client v2 listens on a WebSocket until that ends: `listening` on stdout, and in the next line how it ended.

import { Client } from '@modelcontextprotocol/client';

import { WebSocketTransport } from './matrix/websocket.mjs';

const { ws } = JSON.parse(process.argv[2]);

const client = new Client({ name: 'v2', version: '1' }, { versionNegotiation: { mode: { pin: '2026-07-28' } } });
await client.connect(new WebSocketTransport(new URL(ws)));
const subscription = await client.listen({ toolsListChanged: true });
process.stdout.write('listening\n');
process.stdout.write(`${await subscription.closed}\n`);
await client.close();
