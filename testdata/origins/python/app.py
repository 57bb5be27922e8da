# An origin behind Fanout in Python: Flask, and the GRIP library gripcontrol.
# It listens on PORT, and GRIP_URL says which proxy it works behind; see README.md.
import os, re, sys
import gripcontrol
from flask import Flask, Response, abort, request
from pubcontrol import Item
from waitress import serve

GRIP_URL = os.environ.get("GRIP_URL", "")
if not re.match(r"https?://(\[[0-9a-f:]+\]|[^/?:]+)(:\d+)?[/?].*\bverify-key=.", GRIP_URL):
    sys.exit("GRIP_URL must be the http or https URL of a GRIP proxy, and have a verify-key, or anybody passes for it: see README.md")
grip = gripcontrol.parse_grip_uri(GRIP_URL)
publisher = gripcontrol.GripPubControl(grip)
app = Flask(__name__)


@app.get("/")
def page():
    return """<!doctype html><title>Fanout with Python</title><ul id="messages"></ul><script>new EventSource('/events').onmessage =
  ({ data }) => messages.append(Object.assign(document.createElement('li'), { textContent: data }));</script>"""


def from_proxy():
    """Returns the channel that is asked for, or refuses a request that the proxy has not signed."""
    if not gripcontrol.validate_sig(request.headers.get("Grip-Sig", ""), grip["verify_key"], grip.get("verify_iss")):
        abort(Response("connect to the app, not to its origin\n", 403, mimetype="text/plain"))
    channel = request.args.get("channel", "demo")
    return channel if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", channel) else abort(400)


def held(mode, body, mimetype, headers):
    """Returns a response whose connection the proxy holds, for what is published to the channel."""
    headers |= {"Grip-Hold": mode, "Grip-Channel": from_proxy(), "Cache-Control": "no-store"}
    return Response(body, mimetype=mimetype, headers=headers)


@app.get("/events")  # Server-Sent Events
def events():
    return held("stream", "event: start\ndata:\n\n", "text/event-stream",
                {"Grip-Keep-Alive": r": keep-alive\n\n; format=cstring; timeout=20"})


@app.get("/poll")  # a long-poll, with what it gets if nothing comes
def poll():
    return held("response", "nothing yet\n", "text/plain", {"Grip-Timeout": "25"})


@app.post("/socket")  # a WebSocket: the proxy sends its events in requests
def socket():
    channel, answer = from_proxy(), []
    for event in gripcontrol.decode_websocket_events(request.get_data()):
        if event.type == "OPEN":  # if cookies say who this is, look at Origin too: other sites' pages send them
            subscribe = gripcontrol.websocket_control_message("subscribe", {"channel": channel})
            answer += [event, gripcontrol.WebSocketEvent("TEXT", "c:" + subscribe)]
        elif event.type in ("TEXT", "BINARY"):
            answer.append(gripcontrol.WebSocketEvent(event.type, b"m:" + (event.content or b"")))  # the echo
        elif event.type == "CLOSE":
            answer.append(event)
    return Response(gripcontrol.encode_websocket_events(answer), mimetype="application/websocket-events",
                    headers={"Sec-WebSocket-Extensions": "grip"})


@app.post("/publish")  # Whoever gets here publishes on your bill: in production, ask who it is.
def publish():
    text = request.get_data(as_text=True)
    if "Origin" in request.headers or not text:
        abort(Response("publish a text, from a program, not from a page\n", 403, mimetype="text/plain"))
    event = "".join(f"data: {line}\n" for line in text.splitlines()) + "\n"
    item = Item([gripcontrol.HttpStreamFormat(event), gripcontrol.HttpResponseFormat(body=text + "\n"),
                 gripcontrol.WebSocketMessageFormat(text)])
    try:
        publisher.publish(request.args.get("channel", "demo"), item, blocking=True)
    except ValueError as err:
        app.logger.error("%s: check GRIP_URL, its key, and that its proxy runs", err)
        return "the GRIP proxy did not take it\n", 502
    return "published\n"


if __name__ == "__main__":
    serve(app, host="127.0.0.1", port=int(os.environ.get("PORT", 3000)))
