# An origin behind Fanout in Python, with Flask and the GRIP library gripcontrol.
# It listens on PORT, 3000 by default. GRIP_URL and GRIP_VERIFY_KEY describe the GRIP proxy; see README.md.
import os, re, sys
from urllib.parse import quote
import gripcontrol
from flask import Flask, Response, abort, request
from pubcontrol import Item
from waitress import serve

# The proxy that `fastly compute serve` starts, with the key that everybody knows.
LOCAL = "http://localhost:5561/?verify-iss=viceroy&verify-key=viceroy_dev_signing_key_dont_use_in_production"
GRIP_URL = os.environ.get("GRIP_URL") or LOCAL
if key := os.environ.get("GRIP_VERIFY_KEY"):
    GRIP_URL += ("&" if "?" in GRIP_URL else "?") + "verify-key=" + quote(key)
if not re.match(r"https?://(\[[0-9a-f:]+\]|[^/?:]+)(:\d+)?[/?].*\bverify-key=.", GRIP_URL):
    sys.exit("GRIP_URL must be the http or https URL of a GRIP proxy and have a verify-key, or anybody could pretend to be the proxy: see README.md")
grip = gripcontrol.parse_grip_uri(GRIP_URL)
if "PUBLIC KEY" in str(grip["verify_key"]) and not grip.get("verify_iss"):
    sys.exit("GRIP_URL must have a verify-iss, because all Fanout services sign with the same key: add verify-iss=fastly:{service-id}")
publisher = gripcontrol.GripPubControl(grip)
app = Flask(__name__)


@app.get("/")
def page():
    return """<!doctype html><title>Fanout with Python</title><ul id="messages"></ul><script>new EventSource('/events').onmessage =
  ({ data }) => messages.append(Object.assign(document.createElement('li'), { textContent: data }));</script>"""


def from_proxy():
    """Returns the channel of the request, which the proxy must have signed."""
    if not gripcontrol.validate_sig(request.headers.get("Grip-Sig", ""), grip["verify_key"], grip.get("verify_iss")):
        abort(Response("connect to the app, not to its origin\n", 403, mimetype="text/plain"))
    channel = request.args.get("channel", "demo")
    return channel if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", channel) else abort(400)


def held(mode, body, mimetype, headers):
    """Returns a response that tells the proxy to hold the connection for the channel's messages."""
    headers |= {"Grip-Hold": mode, "Grip-Channel": from_proxy(), "Cache-Control": "no-store"}
    return Response(body, mimetype=mimetype, headers=headers)


@app.get("/events")  # Server-Sent Events
def events():
    return held("stream", "event: start\ndata:\n\n", "text/event-stream",
                {"Grip-Keep-Alive": r": keep-alive\n\n; format=cstring; timeout=20"})


@app.get("/poll")  # a long-poll; the client gets this body if no message comes
def poll():
    return held("response", "nothing yet\n", "text/plain", {"Grip-Timeout": "25"})


@app.post("/socket")  # a WebSocket; the proxy sends its events in requests
def socket():
    channel, answer = from_proxy(), []
    for event in gripcontrol.decode_websocket_events(request.get_data()):
        if event.type == "OPEN":  # if you use cookies, check Origin: pages of other sites send cookies too
            subscribe = gripcontrol.websocket_control_message("subscribe", {"channel": channel})
            answer += [event, gripcontrol.WebSocketEvent("TEXT", "c:" + subscribe)]
        elif event.type in ("TEXT", "BINARY"):
            answer.append(gripcontrol.WebSocketEvent(event.type, b"m:" + (event.content or b"")))  # the echo
        elif event.type == "CLOSE":
            answer.append(event)
    return Response(gripcontrol.encode_websocket_events(answer), mimetype="application/websocket-events",
                    headers={"Sec-WebSocket-Extensions": "grip"})


@app.post("/publish")  # Anybody who can send this request publishes at your cost: in production, check who it is.
def publish():
    text = request.get_data(as_text=True)
    if "Origin" in request.headers or not text:
        abort(Response("send the message from a program, not from a web page\n", 403, mimetype="text/plain"))
    event = "".join(f"data: {line}\n" for line in text.splitlines()) + "\n"
    item = Item([gripcontrol.HttpStreamFormat(event), gripcontrol.HttpResponseFormat(body=text + "\n"),
                 gripcontrol.WebSocketMessageFormat(text)])
    try:
        publisher.publish(request.args.get("channel", "demo"), item, blocking=True)
    except ValueError as err:
        app.logger.error("%s: check GRIP_URL and its key, and that the proxy runs", err)
        return "the GRIP proxy did not accept the message\n", 502
    return "published\n"


if __name__ == "__main__":
    port = int(os.environ.get("PORT", 3000))
    print(f"listening on http://localhost:{port}", flush=True)
    serve(app, host="127.0.0.1", port=port)
