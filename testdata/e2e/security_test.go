package e2e

import (
	"bufio"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// testSmuggling sends requests that a proxy and an origin could read differently, with another
// request hidden in them, and then an honest request on the same connection. The app must refuse
// the first request, or send it on in a form with only one meaning. The hidden request never
// arrives, and the honest one gets its own answer or none. Source: RFC 9112 section 11.2
func testSmuggling(t *testing.T, a *app) {
	needs(t, "origin", "POST")
	const hidden = "POST /hidden HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n"
	const chunk = "3f\r\n" + hidden + "\r\n0\r\n\r\n" // its 63 bytes are 3f in hexadecimal
	const honest = "POST /honest HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n" +
		"Content-Length: 0\r\n\r\n"
	for _, method := range []string{"POST", "GET"} {
		if method == "GET" {
			needs(t, "fanout", "GET")
		}
		for _, sent := range []string{
			"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk,
			"Content-Length: 0\r\nContent-Length: 63\r\n\r\n" + hidden,
			"Content-Length: +0\r\n\r\n" + hidden,
			"Content-Length : 63\r\n\r\n" + hidden,
			"Content-Length: 63\r\nConnection: Content-Length\r\n\r\n" + hidden,
			"Transfer-Encoding: xchunked\r\n\r\n" + chunk,
			"Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding\r\n\r\n" + chunk,
			"Transfer-Encoding:\r\n chunked\r\n\r\n" + chunk,
			"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n" + hidden + "\r\n0\r\n\r\n",
			"Transfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n" + hidden,
			"X-A: b\rContent-Length: 63\r\n\r\n" + hidden,
			"X-A: b\x00\r\nContent-Length: 63\r\n\r\n" + hidden,
			"Content-Length: 63\r\n\r\n" + hidden, // unusual for a GET
		} {
			r := bufio.NewReader(a.send(t, method+" /first HTTP/1.1\r\nHost: example.com\r\n"+sent+honest))
			var answers, arrived []string
			for {
				resp, err := readResponse(r, "POST")
				if err != nil || resp.err != nil {
					break
				}
				answers = append(answers, strings.Split(resp.line, " ")[1])
			}
			for _, s := range []*server{a.origin, a.fanout} {
				for len(s.requests) > 0 {
					arrived = append(arrived, (<-s.requests).line)
				}
			}
			if strings.Contains(strings.Join(arrived, "\n"), "/hidden") {
				t.Errorf("%s %q: the hidden request arrived: %q", method, sent, arrived)
			}
			// 400: the app refused the request. 502: the body was incomplete, and the request to
			// the origin ended too.
			refused := len(answers) > 0 && slices.Contains([]string{"400", "502"}, answers[len(answers)-1])
			if !refused && len(answers) != len(arrived) {
				t.Errorf("%s %q: %q arrived, and the answers were %q", method, sent, arrived, answers)
			}
		}
	}
}

// Several clients send many requests at the same time, each on its own connection, which stays
// open. Each gets the answers to its own requests. A sandbox must not mix two requests.
func testOwnAnswers(t *testing.T, a *app) {
	needs(t, "origin", "POST")
	var clients []*bufio.Reader
	for client := range 8 {
		var requests strings.Builder
		for i := range 25 {
			fmt.Fprintf(&requests, "POST / HTTP/1.1\r\nHost: example.com\r\n"+
				"X-Own: %d-%d\r\nContent-Length: 0\r\n\r\n", client, i)
		}
		clients = append(clients, bufio.NewReader(a.send(t, requests.String())))
	}
	for client, r := range clients {
		for i := range 25 {
			own := fmt.Sprintf("%d-%d", client, i)
			resp, err := readResponse(r, "POST")
			if err != nil || resp.line != "HTTP/1.1 200 OK" || resp.body != own {
				t.Fatalf("%s got %+v, %v", own, resp, err)
			}
		}
	}
}
