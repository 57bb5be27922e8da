package e2e

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// testSmuggling sends requests that a proxy and an origin could read differently, with another request hidden in them,
// and then an honest request on the same connection. The app must refuse the first request, or send it on in a form
// with only one meaning. The hidden request never arrives, and the honest one gets its own answer or none.
// Source: RFC 9112 section 11.2
func testSmuggling(t *testing.T, a *app) {
	needsDefault(t)
	const hidden = "POST /hidden HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n" // 63 bytes, in hexadecimal 3f
	const honest = "POST /honest HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
	for _, sent := range []string{
		"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n3f\r\n" + hidden + "\r\n0\r\n\r\n",
		"Content-Length: 0\r\nContent-Length: 63\r\n\r\n" + hidden,
		"Content-Length: 0, 63\r\n\r\n" + hidden,
		"Content-Length: +0\r\n\r\n" + hidden,
		"Content-Length: 0 0\r\n\r\n" + hidden,
		"Content-Length: 0x0\r\n\r\n" + hidden,
		"Content-Length : 63\r\n\r\n" + hidden,
		"Content-Length: 63\r\nConnection: Content-Length\r\n\r\n" + hidden,
		"Transfer-Encoding: xchunked\r\n\r\n3f\r\n" + hidden + "\r\n0\r\n\r\n",
		"Transfer-Encoding: chunked, identity\r\n\r\n3f\r\n" + hidden + "\r\n0\r\n\r\n",
		"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n3f\r\n" + hidden + "\r\n0\r\n\r\n",
		"Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding\r\n\r\n3f\r\n" + hidden + "\r\n0\r\n\r\n",
		"Transfer-Encoding:\r\n chunked\r\n\r\n3f\r\n" + hidden + "\r\n0\r\n\r\n",
		"Transfer-Encoding: \vchunked\r\n\r\n3f\r\n" + hidden + "\r\n0\r\n\r\n",
		"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + hidden + "\r\n0\r\n\r\n",
		"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n" + hidden + "\r\n0\r\n\r\n",
		"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + hidden + "\r\n0\r\n\r\n",
		"Transfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n" + hidden,
		"X-A: b\rContent-Length: 63\r\n\r\n" + hidden,
		"X-A: b\nContent-Length: 63\r\n\r\n" + hidden,
		"X-A: b\x00\r\nContent-Length: 63\r\n\r\n" + hidden,
		": x\r\nContent-Length: 63\r\n\r\n" + hidden,
		"Content-Length: 63\r\n\r\n" + hidden, // a body that a GET does not usually have
	} {
		for _, method := range []string{"POST", "GET"} {
			conn := a.send(t, method+" /first HTTP/1.1\r\nHost: example.com\r\n"+sent+honest)
			var answers, arrived []string
			for r := bufio.NewReader(conn); ; {
				resp, err := readResponse(r, "POST")
				if err != nil || resp.err != nil {
					break
				}
				answers = append(answers, resp.line[len("HTTP/1.1 "):][:3])
			}
			conn.Close()
			for len(a.origin.requests)+len(a.fanout.requests) > 0 {
				select {
				case req := <-a.origin.requests:
					arrived = append(arrived, req.line)
				case req := <-a.fanout.requests:
					arrived = append(arrived, req.line)
				}
			}
			if slices.ContainsFunc(arrived, func(line string) bool { return strings.Contains(line, "/hidden") }) {
				t.Errorf("%s %q: the hidden request arrived: %q", method, sent, arrived)
			}
			// 400: the app refused the request. 502: the body was incomplete, and the request to the origin ended too.
			refused := len(answers) > 0 && slices.Contains([]string{"400", "502"}, answers[len(answers)-1])
			if !refused && len(answers) != len(arrived) {
				t.Errorf("%s %q: %q arrived, and the answers were %q", method, sent, arrived, answers)
			}
		}
	}
}

// testInjection sends targets and values that try to become header lines.
func testInjection(t *testing.T, a *app) {
	needsDefault(t)
	for _, target := range []string{"/%0d%0aX-Injected:%201", "/?%0aX-Injected:%201", "/%E5%98%8D%E5%98%8AX-Injected:%201", "/%00"} {
		a.check(t, a.origin, request{sent: "POST " + target + " HTTP/1.1\nX-A: %0d%0aX-Injected: 1\n\n"})
		a.check(t, a.fanout, request{sent: "GET " + target + " HTTP/1.1\nX-A: %0d%0aX-Injected: 1\n\n"})
	}
	a.checkResponse(t, "POST", response{sent: "HTTP/1.1 302 Found\nLocation: /x%0d%0aSet-Cookie: a=b\nContent-Length: 0\n\n"})
}

// Many clients at the same time each get the answer to their own request. A sandbox must not mix two requests.
func testOwnAnswers(t *testing.T, a *app) {
	needs(t, "origin", "POST")
	a.origin.echo.Store(true)
	defer a.origin.echo.Store(false)
	var clients sync.WaitGroup
	for client := range 8 {
		clients.Go(func() {
			for i := range 25 {
				own := fmt.Sprintf("%d-%d", client, i)
				conn, err := net.Dial("tcp", a.addr)
				if err != nil {
					t.Error(err)
					return
				}
				conn.SetDeadline(time.Now().Add(patience))
				fmt.Fprintf(conn, "%sX-Own: %s\r\nContent-Length: 2\r\n\r\nok", postHead, own)
				resp, err := readResponse(bufio.NewReader(conn), "POST")
				conn.Close()
				if err != nil || resp.line != "HTTP/1.1 200 OK" || resp.body != own {
					t.Errorf("%s got %+v, %v", own, resp, err)
				}
			}
		})
	}
	clients.Wait()
}
