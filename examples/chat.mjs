// A chat client: node chat.mjs USER ACCOUNT. What you type reaches every client of the account.
import { createHmac } from 'node:crypto';
import { createInterface } from 'node:readline';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';

const SECRET = 'only-for-trying-tokens'; // of examples/relay.yaml; in real life your backend signs the tokens

function token(user, account) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const body = `${part({ alg: 'HS256' })}.${part({ sub: user, account })}`;
  return `${body}.${createHmac('sha256', SECRET).update(body).digest('base64url')}`;
}

const [user, account] = process.argv.slice(2);
const client = new Centrifuge('ws://localhost:8000/connection/websocket', {
  websocket: WebSocket,
  token: token(user, account),
});
const servers = client.newSubscription('servers:all');
const chat = client.newSubscription('chat:all');
servers.on('join', ({ info }) => console.log('joined:', info.user));
servers.on('leave', ({ info }) => console.log('left:', info.user));
chat.on('publication', ({ data, info }) => console.log(`${info?.user ?? 'server'}: ${data.text}`));
client.connect();
servers.subscribe();
chat.subscribe();
await servers.ready();
await chat.ready();
const { clients } = await servers.presence();
console.log('online:', [...new Set(Object.values(clients).map((info) => info.user))].sort().join(' '));
createInterface({ input: process.stdin }).on('line', (text) => chat.publish({ text }));
