// The live page: a WebSocket, an event stream and a long-poll to the same channel. Each comes back by
// itself when its connection is lost, and gets what it missed.
'use strict';

const query = new URLSearchParams(location.search);
const channel = query.get('channel') || 'demo';
const me = query.get('name') || 'guest-' + Math.floor(1000 + Math.random() * 9000);
const retryAfter = 1000; // milliseconds

// target returns the URL of an endpoint, for this channel and this person.
function target(path, more = {}) {
  return path + '?' + new URLSearchParams({ channel, name: me, ...more });
}

// address returns the URL of an endpoint for the command line, where one has no name.
function address(path) {
  return new URL(path + (channel === 'demo' ? '' : '?' + new URLSearchParams({ channel })), location.href).href;
}

// pane returns what a connection needs to show itself.
function pane(id) {
  const section = document.getElementById(id);
  const list = section.querySelector('.messages');
  return {
    state(state, text = state) {
      const shown = section.querySelector('.state');
      section.dataset.state = state;
      if (shown.textContent !== text) shown.textContent = text; // each change is read out
    },
    // show appends a message. Its text is shown as text, whatever it looks like.
    show(text, at) {
      const item = document.createElement('li');
      item.append(text);
      if (at) {
        const latency = document.createElement('small');
        latency.textContent = ` ${Math.max(0, Date.now() - at)} ms`;
        item.append(latency);
      }
      list.append(item);
      while (list.children.length > 200) list.firstChild.remove();
      list.scrollTop = list.scrollHeight;
    },
    note(text) { this.show(`— ${text} —`); },
    onDrop(drop) { section.querySelector('.drop').addEventListener('click', drop); },
    curl(line) { section.querySelector('.curl').textContent = line; },
  };
}

// parsed returns the object that the text is in JSON, or null: what somebody published past the
// origin is any text.
function parsed(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === 'object' ? value : null;
  } catch {
    return null;
  }
}

// A WebSocket has no ids of its own, so the messages carry them: each has that of the one before it.
// Where that is not the last one that was shown, some were missed, and are asked for.
function startSocket() {
  const view = pane('socket');
  let socket;
  let last = ''; // the id of the last message shown; '' until the origin says where to start
  let waiting = []; // what came before that
  const seen = new Set();

  const ask = () => socket.send(JSON.stringify({ after: last }));

  function take(message) {
    if (last === '') {
      waiting.push(message);
    } else if (message.prev === last) {
      last = message.id;
      if (!seen.has(last)) view.show(message.text, message.at);
      seen.add(last);
    } else if (!seen.has(message.id)) {
      ask();
    }
  }

  function connect() {
    view.state('connecting');
    const url = new URL(target('/socket'), location.href);
    url.protocol = url.protocol.replace('http', 'ws');
    socket = new WebSocket(url, 'fanout-demo');
    socket.onopen = ask;
    socket.onmessage = ({ data }) => {
      const value = parsed(data);
      if (value?.start !== undefined) {
        if (value.gap) view.note('some messages are forgotten');
        if (value.gap || last === '') last = value.start;
        view.state('connected'); // not before: from here on, nothing is missed when the connection is lost
        const early = waiting;
        waiting = [];
        early.forEach(take);
      } else if (value?.id) {
        take(value);
      } else {
        view.show(data);
      }
    };
    socket.onclose = ({ code }) => {
      view.state('reconnecting', `reconnecting (closed with code ${code})`);
      setTimeout(connect, retryAfter);
    };
  }

  view.onDrop(() => socket.close(1000));
  view.curl(`websocat '${address('/socket').replace('http', 'ws')}'`);
  connect();
}

// An EventSource reconnects by itself, with the header Last-Event-ID. It gives up on an error
// response, and then a new one goes on after the last id.
function startEvents() {
  const view = pane('events');
  let source;
  let timer;
  let last = '';

  function connect() {
    view.state('connecting');
    source = new EventSource(target('/events', last ? { after: last } : {}));
    source.onmessage = (event) => {
      const message = parsed(event.data);
      last = event.lastEventId || last;
      view.show(message?.text ?? event.data, message?.at);
    };
    source.addEventListener('start', (event) => {
      last = event.lastEventId;
      view.state('connected'); // from here on, nothing is missed when the connection is lost
      if (parsed(event.data)?.gap) view.note('some messages are forgotten');
    });
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) retry();
      else view.state('reconnecting');
    };
  }

  function retry() {
    source.close();
    view.state('reconnecting');
    clearTimeout(timer);
    timer = setTimeout(connect, retryAfter);
  }

  view.onDrop(retry);
  view.curl(`curl -N '${address('/events')}'`);
  connect();
}

// A long-poll is one request after the other, each for what comes after the last message. One with an
// empty id is answered at once: it shows that there is a connection, and says where to start.
async function startPoll() {
  const view = pane('poll');
  let connected = false;
  let last = '';
  let abort;
  view.onDrop(() => abort.abort());
  view.curl(`curl '${address('/poll')}'`);

  for (;;) {
    abort = new AbortController();
    try {
      const response = await fetch(target('/poll', { after: connected ? last : '' }), { signal: abort.signal });
      if (!response.ok) throw new Error(`status ${response.status}`);
      const text = await response.text();
      const answer = parsed(text);
      if (!connected) {
        connected = true;
        view.state('connected', 'waiting for a message');
        last ||= answer.last;
      } else if (answer?.messages) {
        if (answer.gap) view.note('some messages are forgotten');
        for (const message of answer.messages) view.show(message.text, message.at);
        last = answer.last;
      } else {
        view.show(text);
      }
    } catch (error) {
      connected = false;
      view.state('reconnecting', `reconnecting (${error.message})`);
      await new Promise((resolve) => setTimeout(resolve, retryAfter));
    }
  }
}

function startPublish() {
  const form = document.getElementById('publish');
  const result = document.getElementById('published');
  document.getElementById('publish-curl').textContent =
    `curl -d hello '${address('/publish')}'`;
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    try {
      const response = await fetch(target('/publish'), { method: 'POST', body: form.text.value });
      result.textContent = response.ok ? '' : `Not published: ${await response.text()}`;
    } catch (error) {
      result.textContent = `Not published: ${error.message}`;
    }
    form.text.select();
  });
}

async function showWho() {
  const names = { socket: 'WebSocket', events: 'event stream', poll: 'long-poll', stream: 'HTTP stream' };
  const list = document.querySelector('#who ul');
  try {
    const people = new Map();
    for (const { name, transport } of await (await fetch(target('/who'))).json()) {
      people.set(name, [...(people.get(name) ?? []), names[transport]]);
    }
    list.replaceChildren(...Array.from(people, ([name, how]) => {
      const item = document.createElement('li');
      item.textContent = `${name}${name === me ? ' (you)' : ''}: ${how.join(', ')}`;
      return item;
    }));
  } catch {
    // The panes show that the origin is away; this is asked again.
  }
  setTimeout(showWho, 3000);
}

document.getElementById('me').textContent = me;
document.getElementById('channel').textContent = channel;
startSocket();
startEvents();
startPoll();
startPublish();
showWho();
