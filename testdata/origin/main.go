// Command origin is the demo origin: a web server behind a GRIP proxy, which is Fanout
// in production and Pushpin locally. Copy from it what you need.
//
// An endpoint for messages takes the name of a channel as ?channel=, and uses five
// channels of the proxy for it. The origin publishes its messages on "name:stream",
// "name:events", "name:poll" and "name:socket", in the format of that endpoint and
// with ids, so that no message is lost. The channel "name" is for messages that are
// published directly to the proxy.
package main

import (
	"cmp"
	"embed"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// localGripURL has the issuer and the key of the proxy that `fastly compute serve` starts.
const localGripURL = "http://localhost:5561/?verify-iss=viceroy&verify-key=viceroy_dev_signing_key_dont_use_in_production"

//go:embed page
var pageFiles embed.FS

func main() {
	addr := flag.String("addr", "localhost:3000", "where to listen, `host:port`")
	trust := flag.String("trust", "http://localhost:7676,http://127.0.0.1:7676",
		"web `origins` of the app, separated by commas: "+
			"only pages from there may publish and open WebSockets")
	o := newOrigin()
	flag.DurationVar(&o.pollTimeout, "poll-timeout", 25*time.Second,
		"how long a long-poll waits; many proxies allow only 30 s")
	flag.DurationVar(&o.keepAlive, "keep-alive", 20*time.Second,
		"how long a stream is idle before it gets a keep-alive")
	flag.DurationVar(&o.next, "next", 30*time.Second,
		"how often the proxy asks for messages that a stream may have missed")
	flag.Parse()
	log.SetFlags(0)
	log.SetPrefix("origin: ")

	// For Fanout, set these two variables, with your service's id and an API token:
	//	GRIP_URL='https://api.fastly.com/service/ID?key=TOKEN&verify-iss=fastly:ID'
	//	GRIP_VERIFY_KEY='{"kty":"EC","crv":"P-256","x":"CKo5A1ebyFcnmVV8SE5On-8G81JyBjSvcrx4VLetWCg","y":"7gwJqaU6N8TP88--twjkwoB36f-pT3QsmI46nPhjO7M"}'
	var err error
	gripURL := cmp.Or(os.Getenv("GRIP_URL"), localGripURL)
	if o.grip, err = grip.ParseURL(gripURL, os.Getenv("GRIP_VERIFY_KEY")); err != nil {
		log.Fatal(err)
	}
	if !o.grip.Verifies() {
		log.Print("WARNING: there is no verify-key in GRIP_URL and no GRIP_VERIFY_KEY: " +
			"anybody who reaches this origin can pretend to be the proxy")
	}
	if o.pages, err = trustPages(*trust); err != nil {
		log.Fatal(err)
	}
	// The query may have secrets.
	publishTo, _, _ := strings.Cut(o.grip.ControlURI.Redacted(), "?")
	log.Printf("listening on http://%s/, publishing to %s", *addr, publishTo)
	server := http.Server{Addr: *addr, Handler: o.handler(), ReadTimeout: time.Minute}
	log.Fatal(server.ListenAndServe())
}

type origin struct {
	grip     *grip.Config
	history  history
	presence presence
	pages    *http.CrossOriginProtection

	pollTimeout, keepAlive, next time.Duration // see the flags
}

func newOrigin() *origin {
	return &origin{
		history:  history{channels: map[string]*channelLog{}},
		presence: presence{last: map[present]time.Time{}},
	}
}

func (o *origin) handler() http.Handler {
	mux := http.NewServeMux()
	files, _ := fs.Sub(pageFiles, "page") // cannot fail: the directory is embedded
	for _, file := range []string{"/{$}", "/app.js", "/style.css"} {
		mux.HandleFunc("GET "+file, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Security-Policy",
				"default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			http.FileServerFS(files).ServeHTTP(w, r)
		})
	}
	mux.Handle("GET /stream", o.held(o.stream))
	mux.Handle("GET /events", o.held(o.stream))
	mux.Handle("GET /poll", o.held(o.poll))
	mux.Handle("GET /me", o.held(me))
	// A WebSocket's events arrive in POST requests.
	mux.Handle("POST /socket", o.pages.Handler(o.held(o.socket)))
	mux.HandleFunc("GET /socket", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "this is a WebSocket: connect with ws://", http.StatusUpgradeRequired)
	})
	mux.Handle("POST /publish", o.pages.Handler(http.HandlerFunc(o.publish)))
	mux.HandleFunc("GET /who", o.who)
	mux.HandleFunc("/echo", o.echo)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store") // most answers are about one client
		mux.ServeHTTP(w, r)
	})
}

// trustPages returns a filter that refuses what a browser sends for pages of other
// sites, with the cookies of this one. It is given the app's own web origins, such as
// https://www.example.com, because the Host that arrives here is the backend's override
// host. Programs such as curl pass.
func trustPages(origins string) (*http.CrossOriginProtection, error) {
	pages := http.NewCrossOriginProtection()
	for origin := range strings.SplitSeq(origins, ",") {
		if err := pages.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("-trust: %w; write it as http://localhost:7676", err)
		}
	}
	pages.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from := r.Header.Get("Origin")
		log.Printf("%s %s: refused a page of %q; if this page is yours, "+
			"add its origin to -trust, or use make demo TRUST=%[3]q",
			r.Method, r.URL.Path, from)
		http.Error(w, "pages of other sites may not do this", http.StatusForbidden)
	}))
	return pages, nil
}

// client is what a request says about its client.
type client struct {
	channel string
	name    string // what the client calls itself; may be empty
	user    string // X-User, which the app sets once it has checked the client; may be empty
}

var validName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// parseClient reads ?channel= and ?name=. If they are not valid, it answers
// the request with an error.
func parseClient(w http.ResponseWriter, r *http.Request) (client, bool) {
	query := r.URL.Query()
	c := client{channel: cmp.Or(query.Get("channel"), "demo"), name: query.Get("name")}
	if !validName.MatchString(c.channel) || c.name != "" && !validName.MatchString(c.name) {
		http.Error(w, "channel and name must be 1 to 64 letters, digits, '.', '_' or '-'",
			http.StatusBadRequest)
		return client{}, false
	}
	return c, true
}

// held wraps an endpoint that works only through the proxy.
func (o *origin) held(endpoint func(http.ResponseWriter, *http.Request, client)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := o.grip.Verify(r); err != nil {
			log.Printf("%s %s from %s: %v", r.Method, r.URL.Path, r.RemoteAddr, err)
			http.Error(w, "this endpoint works through the GRIP proxy only: "+
				"connect to the app, and let main.go hand off the request",
				http.StatusForbidden)
			return
		}
		c, ok := parseClient(w, r)
		if !ok {
			return
		}
		// If there are several values, one may be the client's. A proxy may have joined them.
		user := strings.Join(r.Header.Values("X-User"), ",")
		if strings.Contains(user, ",") {
			http.Error(w, "there must be only one X-User", http.StatusBadRequest)
			return
		}
		if o.grip.Verifies() { // otherwise anybody can pretend to be the proxy
			c.user = user
		}
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

// echo reports the request as it arrived here, and whether the app handed it off to Fanout.
func (o *origin) echo(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		http.Error(w, fmt.Sprintf("the body ended after %d bytes", n),
			http.StatusBadRequest)
		return
	}
	header, viaFanout := r.Header.Clone(), o.grip.Verify(r) == nil
	if viaFanout {
		// Until the signature expires, anybody who has it can pretend to be the proxy.
		header.Set(grip.HeaderSig, "(withheld)")
	}
	writeJSON(w, map[string]any{
		"method":    r.Method,
		"target":    r.RequestURI,
		"host":      r.Host,
		"header":    header,
		"bodyBytes": n,
		"viaFanout": viaFanout,
	})
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.Encode(v) // fails only if the client has left
}
