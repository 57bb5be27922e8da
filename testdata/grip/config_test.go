package grip

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func TestVerify(t *testing.T) {
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), []byte("a private key for tests, 32 byte"))
	if err != nil {
		t.Fatal(err)
	}
	const public = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAETCXHb3KMCQ4DWDA6kqm/rZJFdReu
GjuqV8OLTJu6nHeTSziqSgMFuRc3k89vt0Tg+Kwu6sCiYgwp2UqSP2bHcw==
-----END PUBLIC KEY-----
`
	const jwk = `{"kty":"EC","crv":"P-256","x":"TCXHb3KMCQ4DWDA6kqm_rZJFdReuGjuqV8OLTJu6nHc",
		"y":"k0s4qkoDBbkXN5PPb7dE4PisLurAomIMKdlKkj9mx3M"}`
	token := func(alg string, key any, issuer string, life time.Duration) string {
		claims := jwt.MapClaims{"iss": issuer, "exp": time.Now().Add(life).Unix()}
		if life == 0 {
			delete(claims, "exp")
		}
		signed, _ := jwt.NewWithClaims(jwt.GetSigningMethod(alg), claims).SignedString(key)
		return signed
	}
	secret, binary := []byte("changeme"), []byte("\xfb\xff\xfe\xff")
	valid := token("HS256", secret, "me", time.Minute)
	es256 := token("ES256", private, "me", time.Minute)
	unsigned := token("none", jwt.UnsafeAllowNoneSignatureType, "me", time.Minute)
	for _, tt := range []struct{ verifyKey, sig, err string }{
		{"changeme", valid, ""},
		{"changeme", sign("me", secret), ""}, // what Publish sends
		{"base64:-__-_w", token("HS256", binary, "me", time.Minute), ""},
		{"base64:" + base64.StdEncoding.EncodeToString([]byte(public)), es256, ""},
		{jwk, es256, ""},
		{public, token("HS256", []byte(public), "me", time.Minute), "HS256 is invalid"},
		{"another", valid, "signature is invalid"},
		{"changeme", token("HS256", secret, "another", time.Minute), "invalid issuer"},
		{"changeme", token("HS256", secret, "me", -time.Minute), "expired"},
		{"changeme", token("HS256", secret, "me", 0), "exp claim is required"},
		{"changeme", unsigned, "signing method none is invalid"},
		{"changeme", "", "no Grip-Sig"},
		{"", "", "no Grip-Sig"},
		{"", "any", ""},
	} {
		c, err := ParseURL("http://localhost:5561/?verify-iss=me", tt.verifyKey)
		if err != nil {
			t.Fatal(err)
		}
		r := &http.Request{Header: http.Header{"Grip-Sig": {tt.sig}}}
		if err := c.Verify(r); !failed(err, tt.err) {
			t.Errorf("%s signed with %s: got %v, want %q", tt.sig, tt.verifyKey, err, tt.err)
		}
	}
}

// fanout is Fanout's public key.
const fanout = `{"kty":"EC","crv":"P-256","x":"CKo5A1ebyFcnmVV8SE5On-8G81JyBjSvcrx4VLetWCg",
	"y":"7gwJqaU6N8TP88--twjkwoB36f-pT3QsmI46nPhjO7M"}`

func TestParseURL(t *testing.T) {
	const service = "https://api.fastly.com/service/ID"
	for _, tt := range []struct {
		url, verifyKey string
		control, token string // token is the beginning
		verifies       bool
	}{
		{"http://localhost:5561/", "", "http://localhost:5561/", "", false},
		{"http://localhost/a/?b=c&key=k", "", "http://localhost/a/?b=c", "k", false},
		{"http://localhost/?iss=me&key=base64:Y2hhbmdlbWU%3D", "", "http://localhost/", "eyJ", true},
		{service + "?key=TOKEN&verify-iss=x", fanout, service, "TOKEN", true},
		{service + "?verify-iss=x&verify-key=" + url.QueryEscape(fanout), "", service, "", true},
	} {
		c, err := ParseURL(tt.url, tt.verifyKey)
		if err != nil {
			t.Errorf("%s: %v", tt.url, err)
			continue
		}
		token := ""
		if c.token != nil {
			token = c.token()
		}
		control, verifies := c.ControlURI.String(), c.Verifies()
		if control != tt.control || verifies != tt.verifies || !strings.HasPrefix(token, tt.token) {
			t.Errorf("%s: got %q, %t, %q", tt.url, control, verifies, token)
		}
	}
	for _, bad := range []struct{ url, verifyKey, err string }{
		{"ftp://localhost/", "", "absolute"},
		{"http:///path", "", "absolute"},
		{"http://localhost:SECRET/", "", "not a URL"},
		{service + "/{service-id}?key=SECRET", "", "still has {...}"},
		{service + "?key=%7Bapi-token%7D", "", "still has {...}"},
		{service + "/publish/?key=SECRET", "", "leave it out"},
		{service + "?key=SECRET%", "", "malformed"},
		{service + "?Key=SECRET", "", "write key=, not Key="},
		{"http://localhost/?verify_key=SECRET", "", "write verify-key=, not verify_key="},
		{"http://localhost/?iss=me&key=base64:", "", "needs a key for signing: it is empty"},
		{"http://localhost/?iss=me&key=" + url.QueryEscape(fanout), "", "must be a secret"},
		{"http://localhost/", "base64:SECRET!", "not base64"},
		{"http://localhost/", `{"kty":"oct","k":"SECRET"}`, "JSON Web Key"},
		{"http://localhost/", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "PEM"},
		{"http://localhost/?verify-iss=&iss=me&key=SECRET", fanout, "add verify-iss=fastly:"},
	} {
		_, err := ParseURL(bad.url, bad.verifyKey)
		if err == nil || !strings.Contains(err.Error(), bad.err) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%q, %q: got %v, want %q without a key", bad.url, bad.verifyKey, err, bad.err)
		}
	}
}
