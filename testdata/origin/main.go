// Command origin is the demo origin: a web server behind a GRIP proxy, which is Fanout
// in production and Pushpin locally. Copy from it what you need.
//
// The endpoints for messages take the name of a channel as ?channel=, and together use
// five channels of the proxy for it. The origin publishes its messages on "name:stream",
// "name:events", "name:poll" and "name:socket", in the format of that endpoint and
// with ids, so that no message is lost. The channel "name" is for messages that are
// published directly to the proxy.
package main

import (
	"cmp"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// origin answers requests.
type origin struct {
	grip    *grip.Config
	pages   *http.CrossOriginProtection
	token   string // that publishers must send; "": none
	history *history
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("origin: ")
	listen, port := "localhost:3000", os.Getenv("PORT")
	if port != "" {
		listen = ":" + port
	}
	addr := flag.String("addr", listen,
		"where to listen, `host:port`; with the variable PORT, the default is all addresses")
	trust := flag.String("trust", "http://localhost:7676,http://127.0.0.1:7676",
		"web `origins` of the app, separated by commas: "+
			"only pages from there may publish and open WebSockets")
	o := &origin{token: os.Getenv("PUBLISH_TOKEN"), history: newHistory()}
	flag.Parse()

	var app *demo
	var err error
	gripURL := grip.LocalURL
	if flag.NArg() > 0 {
		if app, err = newDemo(flag.Args()); err != nil {
			log.Fatal(err)
		}
		*addr, *trust = app.origin, app.trust
		gripURL = strings.Replace(gripURL, "5561", strconv.Itoa(app.publish), 1)
	}
	if o.pages, err = trustPages(*trust); err != nil {
		log.Fatal(err)
	}
	gripURL = cmp.Or(os.Getenv("GRIP_URL"), gripURL)
	if o.grip, err = grip.ParseURL(gripURL, os.Getenv("GRIP_VERIFY_KEY")); err != nil {
		log.Fatal(err)
	}
	if port != "" && gripURL == grip.LocalURL {
		log.Print("WARNING: GRIP_URL is not set, so this origin works only with the local proxy")
	}
	if port != "" && o.token == "" {
		log.Print("WARNING: PUBLISH_TOKEN is not set, so anybody can publish through this origin")
	}
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("listening on %s, publishing to %s", *addr, o.grip.ControlURI.Redacted())
	if app != nil {
		go app.run() // until it ends the process
	}
	server := http.Server{Handler: o.handler(), ReadTimeout: time.Minute}
	log.Fatal(server.Serve(listener))
}
