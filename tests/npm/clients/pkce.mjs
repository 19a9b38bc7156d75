// The official TypeScript clients with a user at a browser: from the platform's refusal to its metadata, to the issuer named there, where
// they register themselves and get a code by PKCE, to a token, and to calls, of which one may need another token with more scopes. Prints
// what was seen on the way as one JSON object.

import { Client as ClientV1 } from '@modelcontextprotocol/sdk/client/index.js';
import { UnauthorizedError as UnauthorizedV1 } from '@modelcontextprotocol/sdk/client/auth.js';
import { StreamableHTTPClientTransport as TransportV1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { Client, StreamableHTTPClientTransport, UnauthorizedError } from '@modelcontextprotocol/client';

const { url, sdk, era, tools } = JSON.parse(process.argv[2]);
// Nobody listens there: the browser below stops at it.
const CALLBACK = 'http://127.0.0.1/callback';
const MOST_PAGES = 20;

/** What a client keeps between its steps, in memory. */
class Keeper {
    redirectUrl = CALLBACK;
    clientMetadata = {
        client_name: `${sdk} ${era}`,
        redirect_uris: [CALLBACK],
        application_type: 'native',
        grant_types: ['authorization_code'],
        response_types: ['code'],
        token_endpoint_auth_method: 'none'
    };
    clientInformation = () => this.registered;
    saveClientInformation = (registered) => void (this.registered = registered);
    tokens = () => this.kept;
    saveTokens = (tokens) => void (this.kept = tokens);
    codeVerifier = () => this.verifier;
    saveCodeVerifier = (verifier) => void (this.verifier = verifier);
    redirectToAuthorization = (page) => void (this.page = page);
}

/** Follows the pages of the issuer as a browser would, and gives the callback's URL. */
async function browse(page) {
    const cookies = new Map();
    for (let at = new URL(page), pages = 0; pages < MOST_PAGES; pages++) {
        const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
        const answer = await fetch(at, { redirect: 'manual', headers: { cookie } });
        for (const line of answer.headers.getSetCookie()) {
            const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
            cookies.set(name, value);
        }
        const location = answer.headers.get('location');
        if (location === null) throw new Error(`${at} leads nowhere (${answer.status}): ${await answer.text()}`);
        at = new URL(location, at);
        if (at.href.startsWith(CALLBACK)) return at;
    }
    throw new Error('the issuer leads in circles');
}

const authProvider = new Keeper();
const open = () => {
    if (sdk === 'v1') return [new ClientV1({ name: 'v1', version: '1' }), new TransportV1(new URL(url), { authProvider })];
    const mode = era === 'modern' ? { pin: '2026-07-28' } : 'legacy';
    const client = new Client({ name: 'v2', version: '1' }, { versionNegotiation: { mode } });
    return [client, new StreamableHTTPClientTransport(new URL(url), { authProvider })];
};

const asked = [];

/** Does what the user has to agree to first; the transport is whose refusal leads to the issuer. */
async function agreed(transport, doing) {
    const refusal = await doing().then(
        () => 'none',
        (error) => error
    );
    if (!(refusal instanceof UnauthorizedV1 || refusal instanceof UnauthorizedError)) throw refusal;
    asked.push(Object.fromEntries(authProvider.page.searchParams));
    const back = (await browse(authProvider.page)).searchParams;
    if (!back.has('code')) throw new Error(`no code: ${back}`);
    // The newer one compares the issuer that stands beside the code.
    await transport.finishAuth(sdk === 'v1' ? back.get('code') : back);
}

const [refused, first] = open();
await agreed(first, () => refused.connect(first));
const [client, transport] = open();
await client.connect(transport);
const call = (name) => client.callTool({ name, arguments: {} });
const who = [await call(tools[0])];
// This provider gives a client no more scopes than it has registered for, and the SDKs register for what they need just then.
authProvider.registered = undefined;
await agreed(transport, () => call(tools[1]));
who.push(await call(tools[1]));
const seen = who.map((result) => result.structuredContent ?? null);
console.log(JSON.stringify({ asked, who: seen }));
await client.close();
