// What every client does here, told in one JSON line on stdout: look around, call, read, follow progress, give up a call.
//
// A client's own file says how its SDK connects and how it spells a call; what is done with that is the same for all of them.

/**
 * @param connect makes a connected client of the settings that the test gave as the program's argument
 * @param callTool calls a tool with the SDK's own order of parameters
 * @param versionOf names the negotiated protocol version
 */
export async function tell({ connect, callTool, versionOf }) {
    const settings = JSON.parse(process.argv[2]);
    const client = await connect(settings);
    const seen = { version: versionOf(client), server: client.getServerVersion()?.name };
    for (const [key, step] of Object.entries(steps(client, callTool, settings.prefix ?? ''))) {
        seen[key] = await step();
    }
    await client.close();
    process.stdout.write(`${JSON.stringify(seen)}\n`);
}

function steps(client, callTool, prefix) {
    const name = (own) => prefix + own;
    const call = (own, args, options) => callTool(client, { name: name(own), arguments: args }, options);
    return {
        tools: async () => (await client.listTools()).tools.map((tool) => tool.name),
        prompts: async () => (await client.listPrompts()).prompts.map((prompt) => prompt.name),
        resources: async () => (await client.listResources()).resources.map((resource) => resource.uri),
        templates: async () =>
            (await client.listResourceTemplates()).resourceTemplates.map((template) => template.uriTemplate),
        found: async () => (await call('search', { query: 'desk', limit: 3 })).structuredContent,
        refused: async () => (await call('get', { sku: 'NO-SUCH-1' })).isError,
        unknown: async () => code(call('no_such_tool', {})),
        read: async () => JSON.parse((await client.readResource({ uri: 'product://categories' })).contents[0].text),
        missing: async () => code(client.readResource({ uri: 'product://NO-SUCH-1' })),
        prompt: async () => {
            const args = { category: 'Office' };
            const { messages } = await client.getPrompt({ name: name('find_in_category'), arguments: args });
            return messages.map((message) => message.content.type);
        },
        completed: async () => {
            const ref = { type: 'ref/prompt', name: name('describe_product') };
            const { completion } = await client.complete({ ref, argument: { name: 'tone', value: 'f' } });
            return completion.values;
        },
        progress: async () => {
            const told = [];
            const onprogress = ({ progress, total }) => told.push([progress, total]);
            const { isError } = await call('reindex', { batch_size: 60, pause_ms: 1 }, { onprogress });
            return { told, isError: isError ?? false };
        },
        aborted: async () => {
            const abort = new AbortController();
            const begun = { signal: abort.signal, onprogress: () => abort.abort('enough') };
            const ended = await code(call('reindex', { batch_size: 1, pause_ms: 1000 }, begun));
            // The connection is as good as before.
            const after = await call('list_categories', {});
            return { ended, after: after.isError ?? false };
        },
    };
}

/** What a promise is rejected with, as the code of a JSON-RPC error or the SDK's own words. */
async function code(promise) {
    try {
        const result = await promise;
        return result.isError ? { isError: true } : 'no error';
    } catch (error) {
        return error.code ?? String(error);
    }
}
