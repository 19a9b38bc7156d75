// Every feature of the support matrix in turn, told in one JSON line on stdout: what a client of an SDK has seen of each.
//
// A client's own file says how its SDK connects, and how it spells what the versions of the SDK spell differently; what is done
// with that is the same for all of them. The server is the conformance fixture.

import { existsSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';

const WATCHED = 'test://watched-resource';

/** What the client answers when it is asked. */
export const ANSWERS = {
    'elicitation/create': ({ requestedSchema }) => {
        const content = Object.fromEntries(Object.keys(requestedSchema.properties).map((name) => [name, 'blue']));
        return { action: 'accept', content };
    },
    'sampling/createMessage': () => ({ role: 'assistant', model: 'test', content: { type: 'text', text: 'four' } }),
    'roots/list': () => ({ roots: [{ uri: 'file:///home/test', name: 'home' }] }),
};

const CAPABILITIES = { elicitation: {}, sampling: {}, roots: { listChanged: true } };

/**
 * @param connect makes a connected client of the settings that the test gave as the program's argument, with those of ANSWERS
 *     whose capabilities it is given
 * @param sdk what the SDK spells in its own way:
 *     call(client, params, options), onNotice(client, method, handler), wantLog(client) for further members of a call,
 *     watch(client, uri) for what ends it, versionOf(client)
 */
export async function tell(connect, sdk) {
    const settings = JSON.parse(process.argv[2]);
    // An SDK complains here of messages that it did not expect.
    const complaints = [];
    const complain = (error) => complaints.push(String(error));
    const client = await connect(settings, CAPABILITIES, complain);
    // At a legacy child process, one that can be asked has a process of its own; changes are made and told in the one that all share.
    const quiet = await connect(settings, {}, complain);
    const seen = { version: sdk.versionOf(client) };
    for (const [feature, step] of Object.entries(FEATURES)) {
        seen[feature] = await step(CHANGES.includes(feature) ? quiet : client, sdk, settings);
    }
    // An SDK that is closed while it comes back for the stream of a call that was given up complains of its own end.
    seen.complaints = [...complaints];
    await client.close();
    await quiet.close();
    process.stdout.write(`${JSON.stringify(seen)}\n`);
}

const CHANGES = ['resource subscriptions', 'list changes'];

const FEATURES = {
    tools: async (client, sdk) => ({
        many: (await client.listTools()).tools.length > 20,
        text: await text(client, sdk, 'test_simple_text'),
        unknown: await code(text(client, sdk, 'no_such_tool')),
    }),
    prompts: async (client) => {
        const { prompts } = await client.listPrompts();
        const { messages } = await client.getPrompt({ name: 'test_simple_prompt' });
        return { listed: prompts.some(({ name }) => name === 'test_simple_prompt'), messages: messages.length };
    },
    resources: async (client) => {
        const { contents } = await client.readResource({ uri: 'test://static-text' });
        return { text: typeof contents[0].text, missing: await code(client.readResource({ uri: 'test://none' })) };
    },
    completion: async (client) => {
        const ref = { type: 'ref/prompt', name: 'test_prompt_with_arguments' };
        const { completion } = await client.complete({ ref, argument: { name: 'arg1', value: 'te' } });
        return completion.values.length > 0;
    },
    progress: async (client, sdk) => {
        const told = [];
        await text(client, sdk, 'test_tool_with_progress', {}, { onprogress: ({ progress }) => told.push(progress) });
        return told;
    },
    cancellation: async (client, sdk, { mark }) => {
        const abort = new AbortController();
        const options = { signal: abort.signal, onprogress: () => abort.abort('enough') };
        const held = await code(text(client, sdk, 'test_hold', { file: mark }, options));
        // The server leaves a mark when it drops the call.
        while (!existsSync(mark)) await setTimeout(10);
        return { isRejected: held !== 'no error' };
    },
    'log lines': async (client, sdk) => {
        const lines = [];
        sdk.onNotice(client, 'notifications/message', ({ data }) => lines.push(data));
        const params = { name: 'test_tool_with_logging', arguments: {}, ...(await sdk.wantLog(client)) };
        await sdk.call(client, params);
        return lines.length;
    },
    elicitation: async (client, sdk) => ({
        once: await text(client, sdk, 'test_elicitation', { message: 'Who are you?' }),
        twice: await text(client, sdk, 'test_input_required_result_multi_round'),
    }),
    sampling: (client, sdk) => text(client, sdk, 'test_sampling', { prompt: 'two and two' }),
    roots: (client, sdk) => text(client, sdk, 'test_input_required_result_list_roots'),
    'resource subscriptions': async (client, sdk) => {
        const end = await sdk.watch(client, WATCHED);
        const seen = { uri: (await after(client, sdk, 'resource_update', 'notifications/resources/updated')).uri };
        // What has been told once can be told again.
        seen.again = (await after(client, sdk, 'resource_update', 'notifications/resources/updated')).uri;
        seen.ended = await end();
        seen.after = await text(client, sdk, 'test_simple_text');
        return seen;
    },
    'list changes': async (client, sdk) => {
        const end = await sdk.watch(client);
        const has = async () => (await client.listTools()).tools.some(({ name }) => name === 'test_passing_tool');
        const before = await has();
        await after(client, sdk, 'tool_change', 'notifications/tools/list_changed');
        const changed = (await has()) !== before;
        await after(client, sdk, 'prompt_change', 'notifications/prompts/list_changed');
        await end();
        return { changed };
    },
};

/** The text that a tool answers. */
async function text(client, sdk, name, args = {}, options = {}) {
    const { content, isError } = await sdk.call(client, { name, arguments: args }, options);
    if (isError) throw new Error(content[0].text);
    return content[0].text;
}

/** The notice that comes of a change. */
async function after(client, sdk, change, method) {
    const notice = new Promise((resolve) => sdk.onNotice(client, method, resolve));
    await text(client, sdk, `test_trigger_${change}`);
    return (await notice) ?? {};
}

/** What a promise is rejected with, as the code of a JSON-RPC error or the SDK's own words. */
async function code(promise) {
    try {
        await promise;
        return 'no error';
    } catch (error) {
        return error.code ?? String(error);
    }
}
