package clients

import (
	"io"
	"net/http"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// Origin is the origin for these clients. It tells the proxy to hold each of them on the channels
// ?channel=. It answers any other request with the request's body. It keeps no history, so the proxy sends
// no request again: only the proxy knows the connections that it holds.
func Origin(w http.ResponseWriter, r *http.Request) {
	channels := r.URL.Query()["channel"]
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has gone
	}
	switch {
	case r.Header.Get("Content-Type") == grip.EventsType:
		events, err := grip.DecodeEvents(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var out []grip.Event
		for _, e := range events {
			switch e.Type {
			case grip.Open:
				out = append(out, e)
				for _, name := range channels {
					out = append(out, grip.Subscribe(name))
				}
			case grip.Close:
				out = append(out, e)
			}
		}
		w.Header().Set("Content-Type", grip.EventsType)
		w.Header().Set(grip.HeaderExtension, grip.Extension)
		w.Write(grip.EncodeEvents(out...))
	case r.Method == http.MethodGet && len(channels) > 0:
		hold := grip.Hold{Mode: grip.Stream}
		for _, name := range channels {
			hold.Channels = append(hold.Channels, grip.Channel{Name: name})
		}
		if err := hold.Set(w.Header()); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, ": open\n\n")
	default:
		w.Write(body)
	}
}
