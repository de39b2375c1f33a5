// A scenario with the official JavaScript SDK: node relay.mjs URL API_URL API_KEY json|protobuf TOKEN TOKEN
// Prints one JSON line per step; ends with status 1 at the first thing that is not as promised.
import assert from 'node:assert/strict';
import { Centrifuge as JsonClient } from 'centrifuge';
import { Centrifuge as ProtobufClient } from 'centrifuge/build/protobuf';
import WebSocket from 'ws';

const [url, apiUrl, apiKey, encoding, token, otherToken] = process.argv.slice(2);
const protobuf = encoding === 'protobuf';
const Centrifuge = protobuf ? ProtobufClient : JsonClient;
const step = (event, rest = {}) => console.log(JSON.stringify({ event, ...rest }));
const encode = (value) => (protobuf ? new TextEncoder().encode(JSON.stringify(value)) : value);
const decode = (data) => (protobuf ? JSON.parse(new TextDecoder().decode(data)) : data);

const watchdog = setTimeout(() => { console.error('scenario hangs'); process.exit(1); }, 60_000);

async function api(method, body) {
  const answer = await fetch(`${apiUrl}/${method}`, {
    method: 'POST',
    headers: { 'X-API-Key': apiKey, 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  });
  const reply = await answer.json();
  assert.equal(reply.error, undefined, `${method}: ${JSON.stringify(reply)}`);
  return reply.result;
}

function connect(clientToken) {
  return new Centrifuge(url, { websocket: WebSocket, token: clientToken, minReconnectDelay: 100, maxReconnectDelay: 500 });
}

// Collects events of an emitter; `next` waits for the first not yet taken that fits.
function collect(emitter, name) {
  const seen = [];
  const waiting = [];
  emitter.on(name, (context) => {
    const at = waiting.findIndex((w) => w.fits(context));
    if (at >= 0) waiting.splice(at, 1)[0].resolve(context);
    else seen.push(context);
  });
  return {
    seen,
    next: (fits = () => true) => {
      const at = seen.findIndex(fits);
      if (at >= 0) return Promise.resolve(seen.splice(at, 1)[0]);
      return new Promise((resolve) => waiting.push({ fits, resolve }));
    },
  };
}

const alice = connect(token);
const bob = connect(otherToken);
const aliceConnected = collect(alice, 'connected');
alice.connect();
bob.connect();
await alice.ready();
await bob.ready();
const { client: aliceId } = await aliceConnected.next();
step('connected', { client: aliceId });

const room = alice.newSubscription('room', { joinLeave: true });
const joins = collect(room, 'join');
const leaves = collect(room, 'leave');
const publications = collect(room, 'publication');
const subscribed = collect(room, 'subscribed');
room.subscribe();
await room.ready();
const first = await subscribed.next();
assert.equal(first.recoverable, true);
assert.equal(first.wasRecovering, false);
step('subscribed', { recoverable: first.recoverable });

const bobRoom = bob.newSubscription('room', { delta: 'fossil' });
const bobPublications = collect(bobRoom, 'publication');
bobRoom.subscribe();
await bobRoom.ready();
const join = await joins.next((c) => c.info.user === 'bob');
step('join', { user: join.info.user });

const { clients } = await room.presence();
assert.deepEqual(Object.values(clients).map((c) => c.user).sort(), ['alice', 'bob']);
const stats = await room.presenceStats();
assert.deepEqual([stats.numClients, stats.numUsers], [2, 2]);
step('presence', { users: 2 });

await bobRoom.publish(encode({ text: 'hello' }));
const hello = await publications.next();
assert.deepEqual(decode(hello.data), { text: 'hello' });
assert.equal(hello.info.user, 'bob');
assert.equal(hello.offset, 1);
step('publication', { from: hello.info.user });

// Payloads that differ little: the second and later ones reach bob as deltas and come out whole.
const filler = 'the same long text in every publication '.repeat(20);
await bobPublications.next();
for (let n = 0; n < 5; n += 1) {
  await api('publish', { channel: 'room', data: { n, filler }, delta: true });
  for (const inbox of [publications, bobPublications]) {
    assert.deepEqual(decode((await inbox.next()).data), { n, filler });
  }
}
step('delta');

const history = await room.history({ limit: 2, reverse: true });
assert.deepEqual(history.publications.map((p) => p.offset), [6, 5]);
step('history', { offset: history.offset });

// The link goes, three publications are missed, the SDK comes back and gets each exactly once.
const reconnecting = collect(alice, 'connecting');
await api('disconnect', { user: 'alice', disconnect: { code: 3011, reason: 'force reconnect' } });
assert.equal((await reconnecting.next()).code, 3011);
for (let n = 10; n < 13; n += 1) await api('publish', { channel: 'room', data: { n } });
const again = await subscribed.next();
assert.equal(again.wasRecovering, true);
assert.equal(again.recovered, true);
for (let n = 10; n < 13; n += 1) assert.deepEqual(decode((await publications.next()).data), { n });
assert.equal(publications.seen.length, 0);
step('recovered');

const unsubscribed = collect(room, 'unsubscribed');
await api('unsubscribe', { user: 'alice', channel: 'room' });
assert.equal((await unsubscribed.next()).code, 2000);
step('unsubscribed');

room.subscribe();
await room.ready();
bob.disconnect();
const leave = await leaves.next((c) => c.info.user === 'bob');
step('leave', { user: leave.info.user });

await assert.rejects(alice.rpc('nothing', encode({})), (error) => error.code === 108);
const disconnected = collect(alice, 'disconnected');
await api('disconnect', { user: 'alice' });
assert.equal((await disconnected.next()).code, 3503);
step('done');
clearTimeout(watchdog);
