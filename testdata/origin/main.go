// Command origin is the demo origin: a small web server whose GET responses and WebSockets work
// through a GRIP proxy, Fanout in production and Pushpin on a person's machine.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// What `fastly compute serve` has Pushpin sign the requests with that it passes on.
const (
	sigIssuer = "viceroy"
	sigKey    = "viceroy_dev_signing_key_dont_use_in_production"
)

// channel is what every stream and every WebSocket is subscribed to.
const channel = "demo"

// maxBody bounds the bodies that are read, in bytes: a message of 64 KiB, the most that Fanout
// takes, fits in with its event.
const maxBody = 128 << 10

func main() {
	addr := flag.String("addr", "localhost:3000", "where to listen, `host:port`")
	flag.Parse()
	log.SetFlags(0)
	log.SetPrefix("origin: ")
	server := http.Server{Addr: *addr, Handler: handler(), ReadHeaderTimeout: 10 * time.Second}
	log.Printf("listening on http://%s/", *addr)
	log.Fatal(server.ListenAndServe())
}

func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", index)
	mux.HandleFunc("GET /stream", stream)
	mux.HandleFunc("POST /socket", socket) // a WebSocket's events arrive in POST requests
	mux.HandleFunc("/echo", echo)
	return mux
}

func index(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprint(w, `This is the demo origin, seen through the app.

GET /stream   an HTTP stream that stays open
    /socket   a WebSocket that echoes
    /echo     any method: what arrived here, as JSON

The channel of the stream and of the WebSocket is "demo".
`)
}

// stream answers with a first line, and has the proxy hold the response open: what is published to
// the channel in the format http-stream is appended to it.
func stream(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set(grip.HeaderHold, grip.HoldStream)
	w.Header().Set(grip.HeaderChannel, channel)
	fmt.Fprintln(w, "stream open")
}

// socket answers the events of a WebSocket: it accepts it, subscribes it to the channel, and from
// then on sends each message back.
func socket(w http.ResponseWriter, r *http.Request) {
	if t := r.Header.Get("Content-Type"); t != grip.EventsType {
		http.Error(w, fmt.Sprintf("this is a WebSocket: Content-Type %q is not %s", t, grip.EventsType), http.StatusUnsupportedMediaType)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
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
			out = append(out, e, grip.Subscribe(channel))
		case grip.Text, grip.Binary:
			out = append(out, grip.Message(e.Type, e.Content))
		case grip.Close: // answered with the same code
			out = append(out, e)
		case grip.Ping:
			out = append(out, grip.Event{Type: grip.Pong, Content: e.Content})
		}
	}
	w.Header().Set("Content-Type", grip.EventsType)
	w.Write(grip.EncodeEvents(out...))
}

// arrived is what echo reports of a request.
type arrived struct {
	Method    string      `json:"method"`
	Target    string      `json:"target"`
	Host      string      `json:"host"`
	Header    http.Header `json:"header"`
	BodyBytes int64       `json:"bodyBytes"`
	ViaFanout bool        `json:"viaFanout"` // its Grip-Sig is valid: only a GRIP proxy has the key
	GripSig   string      `json:"gripSig"`   // "valid", or what is wrong with it
}

// echo reports the request as it arrived here, and through which door.
func echo(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a := arrived{Method: r.Method, Target: r.RequestURI, Header: r.Header, Host: r.Host, BodyBytes: n, ViaFanout: true, GripSig: "valid"}
	if err := grip.VerifySig(r.Header.Get(grip.HeaderSig), sigIssuer, []byte(sigKey)); err != nil {
		a.ViaFanout, a.GripSig = false, err.Error()
	}
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(a); err != nil {
		log.Printf("echo: %v", err)
	}
}
