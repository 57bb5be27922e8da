package main

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// maxEcho is the size of the largest message that is echoed: 32 KiB with its prefix.
// Pushpin 1.36, the version in Debian 12, stalls on larger messages from the origin.
const maxEcho = 32<<10 - len(grip.MessagePrefix)

// maxEvents is the size of the largest body with events, of which there may be many.
const maxEvents = 1 << 20

// command is a text message that the WebSocket does not echo.
type command struct {
	After  *string `json:"after"`  // send the messages after the message with this id
	WhoAmI bool    `json:"whoami"` // say what the origin knows about this connection
	Close  uint16  `json:"close"`  // close the WebSocket with this code
	Reason string  `json:"reason"`
}

// socket answers the events of a WebSocket: it accepts the WebSocket, subscribes it to
// the channel and obeys its commands. It echoes all other messages.
// Source: https://pushpin.org/docs/protocols/websocket-over-http/
func (o *origin) socket(w http.ResponseWriter, r *http.Request, c client) {
	if t := r.Header.Get("Content-Type"); t != grip.EventsType {
		http.Error(w, "this is a WebSocket: the body must be "+grip.EventsType,
			http.StatusUnsupportedMediaType)
		return
	}
	body, ok := readBody(w, r, maxEvents)
	if !ok {
		return
	}
	in, err := grip.DecodeEvents(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}

	o.presence.seen(c, "socket")
	// The proxy keeps attributes of the connection, and sends them with each request as Meta-.
	echoed, _ := strconv.Atoi(r.Header.Get("Meta-Echoed"))
	var out []grip.Event
	for _, e := range in {
		if len(out) > 0 && out[len(out)-1].Type == grip.Close {
			break // nothing follows a close
		}
		switch e.Type {
		case grip.Open:
			w.Header().Set(grip.HeaderExtension, grip.Extension)
			for offered := range strings.SplitSeq(r.Header.Get("Sec-WebSocket-Protocol"), ",") {
				if strings.TrimSpace(offered) == "fanout-demo" {
					w.Header().Set("Sec-WebSocket-Protocol", "fanout-demo")
				}
			}
			out = append(out, e, grip.Subscribe(c.channel), grip.Subscribe(c.channel+":socket"))
		case grip.Text:
			if answer, ok := o.obey(c, e.Content, echoed); ok {
				out = append(out, answer...)
				continue
			}
			fallthrough
		case grip.Binary:
			if len(e.Content) > maxEcho {
				// RFC 6455 section 7.4.1
				out = append(out, grip.CloseEvent(1009, "the message is too big"))
				continue
			}
			echoed++
			out = append(out, grip.Message(e.Type, e.Content))
		case grip.Ping:
			out = append(out, grip.Event{Type: grip.Pong, Content: e.Content})
		case grip.Close:
			out = append(out, e) // with the same code
			fallthrough
		case grip.Disconnect:
			o.presence.gone(c, "socket")
		}
	}
	w.Header().Set("Keep-Alive-Interval", "20") // seconds; so an idle WebSocket counts as connected
	w.Header().Set("Set-Meta-Echoed", strconv.Itoa(echoed))
	w.Header().Set("Content-Type", grip.EventsType)
	w.Write(grip.EncodeEvents(out...))
}

// obey returns the answer to a text message that is a command. ok is
// false if it is not a command.
func (o *origin) obey(c client, content []byte, echoed int) (answer []grip.Event, ok bool) {
	var cmd command
	if err := json.Unmarshal(content, &cmd); err != nil {
		return nil, false
	}
	say := func(v any) {
		answer = append(answer, grip.Message(grip.Text, []byte(compactJSON(v))))
	}
	switch {
	case cmd.Close != 0:
		// An application must not send the other codes: RFC 6455 section 7.4.
		if cmd.Close != 1000 && (cmd.Close < 3000 || cmd.Close > 4999) || len(cmd.Reason) > 123 {
			say(map[string]string{"error": "close needs the code 1000, " +
				"or a code from 3000 to 4999, and a reason of at most 123 bytes"})
			break
		}
		o.presence.gone(c, "socket")
		answer = append(answer, grip.CloseEvent(cmd.Close, cmd.Reason))
	case cmd.WhoAmI:
		say(map[string]any{
			"name":   c.name,
			"user":   c.user,
			"echoed": echoed,
		})
	case cmd.After != nil:
		// The subscription starts a moment after the client sees the WebSocket open. So
		// the client asks for the messages of that moment when the WebSocket opens, and
		// again when the prev of a message is not the id of the one before. The page
		// shows "connected" after this answer.
		messages, start, _, gap := o.history.after(c.channel, *cmd.After)
		say(map[string]any{"start": start, "gap": gap})
		for _, m := range messages {
			say(m)
		}
	}
	return answer, answer != nil
}
