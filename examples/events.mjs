// Sends numbered events with the Countly SDK: node events.mjs DEVICE [COUNT]
import Countly from 'countly-sdk-nodejs';

const [device = 'anna', count = '10'] = process.argv.slice(2);
Countly.init({
  app_key: 'demo-key',
  url: 'http://localhost:8000', // the gateway, where the Countly server would be
  device_id: device,
  interval: 100, // how often the SDK sends, in milliseconds
  storage_type: Countly.StorageTypes.MEMORY,
});
Countly.begin_session(true);
for (let n = 1; n <= Number(count); n += 1) {
  Countly.add_event({ key: 'step', count: 1, segmentation: { n } });
}
console.log(`${count} events; the SDK sends them within a few seconds`);
setTimeout(() => process.exit(), 3000 + Number(count) * 20); // it would go on for ever
