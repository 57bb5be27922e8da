// Command origin is the demo origin: a web server behind a GRIP proxy. In production the proxy is Fanout, on your
// machine it is Pushpin. Copy from it what you need.
//
// Every endpoint takes the name of a channel as ?channel=. The origin uses five channels of the proxy for it.
// On "name:stream", "name:events", "name:poll" and "name:socket" this origin publishes its messages, in the format
// for the clients of each endpoint. These messages have ids, so that no message is lost. The channel "name" itself is
// for messages that are published directly to the proxy, without this origin.
package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// localGripURL is for the proxy that `fastly compute serve` starts. It has the issuer and key of the proxy's signatures.
const localGripURL = "http://localhost:5561/?verify-iss=viceroy&verify-key=viceroy_dev_signing_key_dont_use_in_production"

func main() {
	addr := flag.String("addr", "localhost:3000", "where to listen, `host:port`")
	pollTimeout := flag.Duration("poll-timeout", 25*time.Second, "how long a long-poll waits for a message; most proxies between client and origin allow 30 s")
	keepAlive := flag.Duration("keep-alive", 20*time.Second, "how long a stream may be idle; then it gets a keep-alive")
	trust := flag.String("trust", "http://localhost:7676,http://127.0.0.1:7676", "web `origins` of the app, separated by commas: only pages from there may publish and open WebSockets")
	next := flag.Duration("next", 30*time.Second, "how often the proxy asks for messages that a stream has missed, even if it noticed none")
	flag.Parse()
	log.SetFlags(0)
	log.SetPrefix("origin: ")

	// For Fanout in production, set these two variables, with your service's id and an API token:
	//	GRIP_URL='https://api.fastly.com/service/ID?key=TOKEN&verify-iss=fastly:ID'
	//	GRIP_VERIFY_KEY='{"kty":"EC","crv":"P-256","x":"CKo5A1ebyFcnmVV8SE5On-8G81JyBjSvcrx4VLetWCg","y":"7gwJqaU6N8TP88--twjkwoB36f-pT3QsmI46nPhjO7M"}'
	config, err := grip.ParseURL(cmp.Or(os.Getenv("GRIP_URL"), localGripURL), os.Getenv("GRIP_VERIFY_KEY"))
	if err != nil {
		log.Fatal(err)
	}
	if !config.Verifies() {
		log.Print("WARNING: GRIP_URL has no verify-key, and GRIP_VERIFY_KEY is not set: anybody who can reach this origin can pretend to be the proxy")
	}
	pages, err := trustPages(*trust)
	if err != nil {
		log.Fatal(err)
	}
	o := &origin{
		grip: config, history: newHistory(), presence: newPresence(), pages: pages,
		pollTimeout: *pollTimeout, keepAlive: *keepAlive, next: *next,
	}
	server := http.Server{Addr: *addr, Handler: o.handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute}
	publishTo, _, _ := strings.Cut(config.ControlURI.String(), "?") // the query may have secrets: do not log it
	log.Printf("listening on http://%s/, publishing to %s", *addr, publishTo)
	log.Fatal(server.ListenAndServe())
}

type origin struct {
	grip     *grip.Config
	history  *history
	presence *presence
	pages    *http.CrossOriginProtection

	pollTimeout, keepAlive, next time.Duration // set with the flags
}

func (o *origin) handler() http.Handler {
	mux := http.NewServeMux()
	for _, file := range []string{"/{$}", "/app.js", "/style.css"} {
		mux.Handle("GET "+file, page())
	}
	mux.Handle("GET /stream", o.held(o.stream))
	mux.Handle("GET /events", o.held(o.events))
	mux.Handle("GET /poll", o.held(o.poll))
	mux.Handle("GET /me", o.held(me))
	mux.Handle("POST /socket", o.pages.Handler(o.held(o.socket))) // a WebSocket's events arrive in POST requests
	mux.HandleFunc("GET /socket", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "this is a WebSocket: connect with ws://", http.StatusUpgradeRequired)
	})
	mux.Handle("POST /publish", o.pages.Handler(http.HandlerFunc(o.publish)))
	mux.HandleFunc("GET /who", o.who)
	mux.HandleFunc("/echo", o.echo)
	return mux
}

// trustPages returns a filter that refuses requests from pages of other sites. A browser sends such requests for any
// page, with the cookies of this site, and opens WebSockets too. The parameter lists the app's own web origins; in
// production that is its domain, such as https://www.example.com. The filter needs the list, because the Host header that arrives
// here is the backend's override host. Requests from other programs, such as curl, pass the filter: see publish.
func trustPages(origins string) (*http.CrossOriginProtection, error) {
	pages := http.NewCrossOriginProtection()
	for origin := range strings.SplitSeq(origins, ",") {
		if err := pages.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("-trust: %w; write it as http://localhost:7676", err)
		}
	}
	pages.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from := r.Header.Get("Origin")
		log.Printf("%s %s: refused a page of %q; if this page is yours, add its origin to -trust, or use make demo TRUST=%[3]q", r.Method, r.URL.Path, from)
		http.Error(w, "pages of other sites may not do this", http.StatusForbidden)
	}))
	return pages, nil
}

// client is what a request says about its client.
type client struct {
	channel string
	name    string // of the person; it may be empty
	user    string // who the app says it is; empty if it says nothing
}

var validName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// parseClient reads ?channel= and ?name=. If they are not valid, it answers the request with an error.
func parseClient(w http.ResponseWriter, r *http.Request) (client, bool) {
	query := r.URL.Query()
	c := client{channel: cmp.Or(query.Get("channel"), "demo"), name: query.Get("name")}
	if !validName.MatchString(c.channel) || c.name != "" && !validName.MatchString(c.name) {
		http.Error(w, "channel and name must be 1 to 64 letters, digits, '.', '_' or '-'", http.StatusBadRequest)
		return client{}, false
	}
	return c, true
}

// headerUser is the header in which the app tells who the client is, when it has checked that.
const headerUser = "X-User"

// held wraps an endpoint that works only through the proxy, such as one whose connections it holds. It refuses requests that did not come through the proxy,
// and requests with an invalid channel or name.
func (o *origin) held(endpoint func(http.ResponseWriter, *http.Request, client)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := o.grip.Verify(r); err != nil {
			log.Printf("%s %s from %s: %v", r.Method, r.URL.Path, r.RemoteAddr, err)
			http.Error(w, "this endpoint works through the GRIP proxy only: connect to the app, and let main.go hand off the request", http.StatusForbidden)
			return
		}
		c, ok := parseClient(w, r)
		if !ok {
			return
		}
		// Several values may be the client's and the app's, and a proxy may have joined them with a comma.
		user := strings.Join(r.Header.Values(headerUser), ",")
		if strings.Contains(user, ",") {
			http.Error(w, "there must be only one "+headerUser, http.StatusBadRequest)
			return
		}
		if o.grip.Verifies() { // otherwise anybody can pretend to be the proxy
			c.user = user
		}
		w.Header().Set("Cache-Control", "no-store")
		endpoint(w, r, c)
	})
}

// me answers with the user that the app vouches for.
func me(w http.ResponseWriter, _ *http.Request, c client) {
	if c.user == "" {
		w.Header().Set("WWW-Authenticate", "Bearer") // RFC 9110 section 15.5.2
		http.Error(w, "the app vouches for no user", http.StatusUnauthorized)
		return
	}
	writeJSON(w, map[string]string{"user": c.user})
}

// arrived is echo's report about a request.
type arrived struct {
	Method    string      `json:"method"`
	Target    string      `json:"target"`
	Host      string      `json:"host"`
	Header    http.Header `json:"header"`
	BodyBytes int64       `json:"bodyBytes"`
	ViaFanout bool        `json:"viaFanout"` // Grip-Sig is valid; only a GRIP proxy has the key for it
	GripSig   string      `json:"gripSig"`   // "valid", or the reason why not
}

// echo reports the request as it arrived here, and whether the app handed it off to Fanout.
func (o *origin) echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store") // the report shows this client's headers
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		http.Error(w, fmt.Sprintf("the body is incomplete: it ended after %d bytes", n), http.StatusBadRequest)
		return
	}
	a := arrived{Method: r.Method, Target: r.RequestURI, Host: r.Host, Header: r.Header.Clone(), BodyBytes: n, ViaFanout: true, GripSig: "valid"}
	if err := o.grip.Verify(r); err != nil {
		a.ViaFanout, a.GripSig = false, err.Error()
	} else {
		// Do not show the signature: until it expires, anybody who has it can pretend to be the proxy.
		a.Header.Set(grip.HeaderSig, "(withheld)")
	}
	writeJSON(w, a)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		log.Printf("write a response: %v", err)
	}
}
