package grip

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Publish sends this request. If it fails, the error has one line. It says what to
// change, and does not show the token.
func TestPublish(t *testing.T) {
	item := Item{Channel: "c", ID: "2", PrevID: "1", Formats: Formats{
		HTTPStream: &HTTPStream{"a\n"}, HTTPResponse: &HTTPResponse{"b"}, WSMessage: &WSMessage{"<d>"},
	}}
	const want = "POST /service/ID/publish/ application/json Bearer TOKEN " +
		`{"items":[{"channel":"c","id":"2","prev-id":"1","formats":{"http-stream":{"content":"a\n"},` +
		`"http-response":{"body":"b"},"ws-message":{"content":"<d>"}}}]}`
	status, answer := 200, ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got := strings.Join([]string{r.Method, r.RequestURI, r.Header.Get("Content-Type"),
			r.Header.Get("Authorization"), string(body)}, " ")
		if got != want {
			t.Errorf("got %s; want %s", got, want)
		}
		w.Header().Set("Location", "/")
		w.WriteHeader(status)
		io.WriteString(w, answer)
	}))
	defer server.Close()
	c, err := ParseURL(strings.Replace(server.URL, "//", "//u:TOKEN@", 1)+"/service/ID/?verify-key=k&key=TOKEN", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		status       int
		answer, says string
	}{
		{202, "", "<nil>"},
		{301, "", "check the host and path in GRIP_URL"}, // not followed
		{401, "TOKEN\nexpired", `put a valid key for this service into GRIP_URL; the answer: "(withheld)\nexpired"`},
		{403, "no such token\n", "put a valid key"},
		{404, "", "check the host and path in GRIP_URL"},
		{429, "slow down", `try again later; the answer: "slow down"`},
		{503, strings.Repeat("x", 198) + "TOKEN", `; try again later; the answer: "x`},
		{0, "", "no response from the GRIP proxy; check that it runs"},
	} {
		if status, answer = tt.status, tt.answer; status == 0 {
			server.Close()
		}
		got := fmt.Sprint(c.Publish(t.Context(), item))
		if !strings.Contains(got, tt.says) || strings.Contains(got, "\n") || strings.Contains(got, "TO") {
			t.Errorf("%d: got %s, want %q", tt.status, got, tt.says)
		}
	}
}
