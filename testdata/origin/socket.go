package main

import (
	"encoding/json"
	"net/http"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// maxEcho is the size of the largest message that is echoed: 32 KiB with its prefix.
// Pushpin 1.36, the version in Debian 12, stalls on larger messages from the origin.
const maxEcho = 32<<10 - len(grip.MessagePrefix)

// socket answers the events of a WebSocket: it accepts the WebSocket, subscribes it to
// the channel, and answers its messages.
// Source: https://pushpin.org/docs/protocols/websocket-over-http/
func (o *origin) socket(w http.ResponseWriter, r *http.Request, channel string) {
	body, ok := readBody(w, r)
	if !ok {
		return
	}
	in, err := grip.DecodeEvents(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var out []grip.Event
	for _, e := range in {
		switch e.Type {
		case grip.Open:
			w.Header().Set(grip.HeaderExtension, grip.Extension)
			out = append(out, e, grip.Subscribe(channel), grip.Subscribe(channel+":socket"))
		case grip.Text, grip.Binary:
			out = append(out, o.answer(e, channel)...)
		case grip.Ping:
			out = append(out, grip.Event{Type: grip.Pong, Content: e.Content})
		case grip.Close:
			out = append(out, e) // with the same code
		}
		if len(out) > 0 && out[len(out)-1].Type == grip.Close {
			break // nothing follows a close
		}
	}
	w.Header().Set("Content-Type", grip.EventsType)
	w.Write(grip.EncodeEvents(out...))
}

// command is a text message that the WebSocket does not echo.
type command struct {
	After  *string `json:"after"` // send the messages after the message with this id
	Close  uint16  `json:"close"` // close the WebSocket with this code
	Reason string  `json:"reason"`
}

// answer obeys a message that is a command, and echoes any other.
func (o *origin) answer(e grip.Event, channel string) (answer []grip.Event) {
	var cmd command
	if e.Type != grip.Text || json.Unmarshal(e.Content, &cmd) != nil {
		cmd = command{}
	}
	// An application must not send the other codes: RFC 6455 section 7.4.
	mayClose := cmd.Close == 1000 || cmd.Close >= 3000 && cmd.Close <= 4999
	switch {
	case cmd.After != nil:
		// The subscription starts a moment after the client sees the WebSocket open. So
		// the client asks for the messages of that moment when the WebSocket opens, and
		// again when the prev of a message is not the id of the one before. The page
		// shows "connected" after this answer.
		say := func(v any) {
			answer = append(answer, grip.Message(grip.Text, []byte(compactJSON(v))))
		}
		messages, start, _, gap := o.history.after(channel, *cmd.After)
		say(map[string]any{"start": start, "gap": gap})
		for _, m := range messages {
			say(m)
		}
		return answer
	case mayClose && len(cmd.Reason) <= 123:
		return append(answer, grip.CloseEvent(cmd.Close, cmd.Reason))
	case len(e.Content) > maxEcho:
		return append(answer, grip.CloseEvent(1009, "the message is too big")) // RFC 6455 section 7.4.1
	}
	return append(answer, grip.Message(e.Type, e.Content))
}
