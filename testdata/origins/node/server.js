// An origin behind Fanout in JavaScript, with Express and the GRIP library @fanoutio/serve-grip.
// It listens on PORT, 3000 by default. GRIP_URL and GRIP_VERIFY_KEY describe the GRIP proxy; see README.md.
import net from 'node:net';
import express from 'express';
import { ServeGrip } from '@fanoutio/serve-grip';
import {
  HttpResponseFormat, HttpStreamFormat, WebSocketMessageFormat, isSymmetricSecret, loadKey, parseGripUri,
} from '@fanoutio/grip';

net.setDefaultAutoSelectFamily(true); // for Node.js 18, where "localhost" would only be ::1

// The proxy that `fastly compute serve` starts, with the key that everybody knows.
const local = 'http://localhost:5561/?verify-iss=viceroy&verify-key=viceroy_dev_signing_key_dont_use_in_production';
const url = process.env.GRIP_URL || local;
const grip = /^https?:/.test(url) && URL.canParse(url)
  ? parseGripUri(url, { 'verify-key': process.env.GRIP_VERIFY_KEY || undefined }) : {};
if (!grip.verify_key) { // without it, anybody could pretend to be the proxy
  console.error('GRIP_URL must be the http or https URL of a GRIP proxy and have a verify-key: see README.md');
  process.exit(1);
}
if (!grip.verify_iss && !isSymmetricSecret(loadKey(grip.verify_key))) {
  console.error('GRIP_URL must have a verify-iss, because all Fanout services sign with the same key: add verify-iss=fastly:{service-id}');
  process.exit(1);
}
const serveGrip = new ServeGrip({ grip });
const app = express();
app.use(serveGrip);

// Passes on only requests that the proxy signed. The library's req.grip.isSigned cannot tell: in version 2.0.0
// it is true for any signature, because the library does not wait for its own check.
async function fromProxy(req, res, next) {
  const { isSigned } = await serveGrip.getPublisher().validateGripSig(req.get('Grip-Sig'));
  if (!isSigned) return res.status(403).type('text').send('connect to the app, not to its origin\n');
  res.locals.channel = String(req.query.channel ?? 'demo');
  if (!/^[\w.-]{1,64}$/.test(res.locals.channel)) return res.status(400).type('text').send('bad channel\n');
  res.set('Cache-Control', 'no-store');
  next();
}

app.get('/', (req, res) => res.send(`<!doctype html><title>Fanout with Node.js</title><ul id="messages"></ul><script>
  new EventSource('/events').onmessage = ({ data }) =>
    messages.append(Object.assign(document.createElement('li'), { textContent: data }));
</script>`));

app.get('/events', fromProxy, (req, res) => { // Server-Sent Events
  const hold = res.grip.startInstruct();
  hold.addChannel(res.locals.channel);
  hold.setHoldStream();
  hold.setKeepAlive(': keep-alive\n\n', 20); // seconds
  res.type('text/event-stream').end('event: start\ndata:\n\n');
});

app.get('/poll', fromProxy, (req, res) => { // a long-poll; the client gets this body if no message comes
  const hold = res.grip.startInstruct();
  hold.addChannel(res.locals.channel);
  hold.setHoldLongPoll(25); // seconds
  res.type('text').end('nothing yet\n');
});

app.post('/socket', fromProxy, (req, res) => { // a WebSocket; the proxy sends its events in requests
  const ws = req.grip.wsContext;
  if (!ws) return res.status(415).type('text').send('this is a WebSocket: connect to the app with ws://\n');
  if (ws.isOpening()) { // if you use cookies, check the Origin header: pages of other sites send cookies too
    ws.accept();
    ws.subscribe(res.locals.channel);
  }
  try {
    while (ws.canRecv()) {
      const message = ws.recvRaw();
      if (message === null) ws.close(ws.closeCode ?? 1000);
      else if (typeof message === 'string') ws.send(message); // the echo
      else ws.sendBinary(message);
    }
  } catch { /* the library throws an error if the client is gone */ }
  res.end();
});

// Anybody who can send this request publishes at your cost: in production, check who it is. Web pages are refused.
app.post('/publish', express.text({ type: () => true, limit: '16kb' }), async (req, res) => {
  if (req.get('Origin')) return res.status(403).type('text').send('publish from a program, not from a web page\n');
  const { channel = 'demo' } = req.query, text = req.body || '';
  const event = text.split(/\r\n|\r|\n/).map((line) => `data: ${line}\n`).join('') + '\n';
  await serveGrip.getPublisher().publishFormats(String(channel),
    [new HttpStreamFormat(event), new HttpResponseFormat({ body: `${text}\n` }), new WebSocketMessageFormat(text)])
    .then(() => res.type('text').send('published\n'), ({ message, context: { statusCode } }) => {
      console.error('publish: status %d, %s: check GRIP_URL and its key, and that the proxy runs', statusCode, message);
      res.status(502).type('text').send('the GRIP proxy did not accept the message\n');
    });
});

const port = process.env.PORT || 3000;
app.listen(port, '127.0.0.1', (err) => {
  if (err) throw err;
  console.log(`listening on http://localhost:${port}`);
});
