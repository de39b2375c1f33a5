// Scenarios with the official Countly SDK for Node: node countly.mjs single|bulk URL APP_KEY DEVICE [OPTIONS as JSON]
// Sends numbered events; prints a JSON line when all were handed to the SDK, and one when its queue is empty. Runs until
// its input ends.
import Countly from 'countly-sdk-nodejs';

const [mode, url, appKey, device, text = '{}'] = process.argv.slice(2);
const options = JSON.parse(text);
// `endless`: events go on until a line of input says `stop`.
const { events = 100, endless = false, salt = null, post = false, merge = null, picture = null } = options;
const step = (event, rest = {}) => console.log(JSON.stringify({ event, ...rest }));
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let stopped = false;
process.stdin.on('end', () => process.exit(0)).on('data', (text) => { stopped ||= String(text).includes('stop'); });

// Counts answers as they come to the SDK; `http_options` is called once per request, before it is made.
let requests = 0;
const counted = () => { requests += 1; };

async function single() {
  Countly.init({
    app_key: appKey,
    url,
    device_id: device,
    salt,
    force_post: post,
    interval: 20,
    fail_timeout: 1,
    max_events: 3,
    queue_size: 100000,
    storage_type: Countly.StorageTypes.MEMORY,
    http_options: counted,
  });
  Countly.begin_session(true);
  for (let n = 1; endless ? !stopped : n <= events; n += 1) {
    Countly.add_event({ key: 'step', count: 1, segmentation: { n, text: 'a&b=c+d %41 ü' } });
    if (endless) step('added', { n });
    if (endless || n % 10 === 0) await pause(30);
    if (merge && n === Math.floor(events / 2)) Countly.change_id(merge, true);
  }
  if (picture) Countly.user_details({ name: 'Anna', picturePath: picture });
  Countly.end_session(5);
}

async function bulk() {
  const server = new Countly.Bulk({
    app_key: appKey,
    url,
    salt,
    interval: 50,
    fail_timeout: 1,
    bulk_size: 10,
    max_events: 5,
    storage_type: Countly.Bulk.StorageTypes.MEMORY,
    http_options: counted,
  });
  // The SDK batches the events of a device; several devices share a bulk request.
  for (let n = 1; n <= events; n += 1) {
    for (const name of [`${device}-a`, `${device}-b`]) {
      server.add_event(name, { key: 'step', count: 1, segmentation: { n, text: 'a&b=c+d %41 ü' } });
    }
  }
  server.start(() => { if (server.queue_size() === 0) step('empty', { requests }); });
}

await (mode === 'bulk' ? bulk() : single());
step('sent', { requests });
