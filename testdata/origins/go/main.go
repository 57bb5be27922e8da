// Command origin keeps connections open behind Fanout, and subscribes them to the channel "demo".
package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	// An event stream: Fanout sends this response, keeps it open, and appends what is published.
	http.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Grip-Hold", "stream")
		w.Header().Set("Grip-Channel", "demo")
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: connected\n\n")
	})
	http.HandleFunc("GET /poll", func(w http.ResponseWriter, r *http.Request) { // a long-poll
		w.Header().Set("Grip-Hold", "response") // what is published next becomes the response's body
		w.Header().Set("Grip-Channel", "demo")
		fmt.Fprintln(w, "no message yet") // the response if nothing is published for 55 seconds
	})
	// A WebSocket: its events come in POST requests, such as "OPEN", or "TEXT 5" and five bytes.
	http.HandleFunc("POST /socket", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/websocket-events")
		w.Header().Set("Sec-WebSocket-Extensions", "grip") // "c:" begins a message to Fanout itself
		events := bufio.NewReader(r.Body)
		for line, err := events.ReadString('\n'); err == nil; line, err = events.ReadString('\n') {
			kind, size := "", int64(-2) // so that nothing is read after an event without content
			fmt.Sscanf(line, "%s %x", &kind, &size)
			content, _ := io.ReadAll(io.LimitReader(events, size+2)) // a line end follows it
			switch text := `c:{"type":"subscribe","channel":"demo"}`; kind {
			case "OPEN": // accept the WebSocket, and subscribe it
				fmt.Fprintf(w, "OPEN\r\nTEXT %x\r\n%s\r\n", len(text), text)
			case "CLOSE": // close it, with the same code
				fmt.Fprintf(w, "%s%s", line, content)
			}
		}
	})
	log.Fatal(http.ListenAndServe("localhost:"+cmp.Or(os.Getenv("PORT"), "3000"), nil))
}
