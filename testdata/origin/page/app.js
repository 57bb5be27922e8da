// The live page: a WebSocket, an event stream and a long-poll, on the same channel. When a connection is lost, the
// page connects again and gets the messages that it missed.
'use strict';

const channel = new URLSearchParams(location.search).get('channel') || 'demo';
const retryAfter = 1000; // milliseconds

// target returns the URL of an endpoint, for this channel.
function target(path, more = {}) {
  return path + '?' + new URLSearchParams({ channel, ...more });
}

// address returns the URL of an endpoint for the command line.
function address(path) {
  return new URL(path + (channel === 'demo' ? '' : '?' + new URLSearchParams({ channel })), location.href).href;
}

// pane returns the functions that show a connection's state and messages.
function pane(id) {
  const section = document.getElementById(id);
  const list = section.querySelector('.messages');
  return {
    state(state, text = state) {
      const shown = section.querySelector('.state');
      section.dataset.state = state;
      if (shown.textContent !== text) shown.textContent = text; // a screen reader reads each change
    },
    // show adds a message. Its text is shown as plain text, even if it looks like HTML.
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

// parsed returns the object for a text in JSON. It returns null for other texts, which come from programs that publish
// directly to the proxy.
function parsed(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === 'object' ? value : null;
  } catch {
    return null;
  }
}

// A WebSocket itself has no message ids, so the messages have them. Each message also has the id of the message before
// it. If that is not the last message shown, the page has missed some, and asks for them.
function startSocket() {
  const view = pane('socket');
  let socket;
  let last = ''; // the id of the last message shown; '' until the origin has sent the first id
  let waiting = []; // messages that came before that
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
    socket = new WebSocket(url);
    socket.onopen = ask;
    socket.onmessage = ({ data }) => {
      const value = parsed(data);
      if (value?.start !== undefined) {
        if (value.gap) view.note('some missed messages are no longer stored');
        if (value.gap || last === '') last = value.start;
        view.state('connected'); // not earlier: only from now on, no message is lost when the connection is lost
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

// An EventSource reconnects by itself, with the header Last-Event-ID. After an error response it does not. Then the
// page makes a new EventSource, which continues after the last id.
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
      view.state('connected'); // from now on, no message is lost when the connection is lost
      if (parsed(event.data)?.gap) view.note('some missed messages are no longer stored');
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

// A long-poll is a series of requests. Each asks for the messages after the last one. A request with an empty id is
// answered at once, so the page learns that it is connected and where to start.
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
        if (answer.gap) view.note('some missed messages are no longer stored');
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

document.getElementById('channel').textContent = channel;
startSocket();
startEvents();
startPoll();
startPublish();
