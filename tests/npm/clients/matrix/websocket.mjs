// A WebSocket for the official TypeScript client v2, which brings none.

/** One message a text frame. */
export class WebSocketTransport {
    constructor(url) {
        this.url = url;
    }

    start() {
        this.socket = new WebSocket(this.url, 'mcp');
        this.socket.onmessage = ({ data }) => this.onmessage?.(JSON.parse(data));
        this.socket.onclose = () => this.onclose?.();
        return new Promise((resolve, reject) => {
            this.socket.onopen = () => resolve();
            this.socket.onerror = ({ error }) => reject(error);
        });
    }

    async send(message) {
        this.socket.send(JSON.stringify(message));
    }

    async close() {
        this.socket.close();
    }
}
