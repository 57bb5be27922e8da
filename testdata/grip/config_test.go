package grip

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const public = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAETCXHb3KMCQ4DWDA6kqm/rZJFdReu
GjuqV8OLTJu6nHeTSziqSgMFuRc3k89vt0Tg+Kwu6sCiYgwp2UqSP2bHcw==
-----END PUBLIC KEY-----
`

func TestVerify(t *testing.T) {
	private, _ := ecdsa.ParseRawPrivateKey(elliptic.P256(), []byte("a private key for tests, 32 byte"))
	token := func(alg string, key any, issuer string, life time.Duration) string {
		claims := jwt.MapClaims{"iss": issuer, "exp": time.Now().Add(life).Unix()}
		if life == 0 {
			delete(claims, "exp")
		}
		signed, _ := jwt.NewWithClaims(jwt.GetSigningMethod(alg), claims).SignedString(key)
		return signed
	}
	secret, none := []byte("\xfb\xff\xfe\xff"), jwt.UnsafeAllowNoneSignatureType
	for _, tt := range []struct{ verifyKey, sig, err string }{
		{"base64:+// /w==", token("HS256", secret, "me", time.Minute), ""}, // a plus sign from a URL
		{"\xfb\xff\xfe\xff", token("HS256", secret, "me", time.Minute), ""},
		{public, token("ES256", private, "me", time.Minute), ""},
		{public, token("HS256", []byte(public), "me", time.Minute), "HS256 is invalid"},
		{"another", token("HS256", secret, "me", time.Minute), "signature is invalid"},
		{string(secret), token("HS256", secret, "another", time.Minute), "invalid issuer"},
		{string(secret), token("HS256", secret, "me", -time.Minute), "expired"},
		{string(secret), token("HS256", secret, "me", 0), "exp claim is required"},
		{string(secret), token("none", none, "me", time.Minute), "signing method none is invalid"},
		{string(secret), "", "not through the GRIP proxy: its Grip-Sig"},
	} {
		c, err := ParseURL("http://localhost:5561/?verify-iss=me", tt.verifyKey)
		if err != nil {
			t.Fatal(err)
		}
		r := &http.Request{Header: http.Header{"Grip-Sig": {tt.sig}}}
		if err := c.Verify(r); !failed(err, tt.err) {
			t.Errorf("%s signed with %q: got %v, want %q", tt.sig, tt.verifyKey, err, tt.err)
		}
	}
}

// The key in the document is Fanout's. The coordinates are from the JSON Web Key in
// https://github.com/fanout/js-grip#the-grip_url.
func TestFanoutKey(t *testing.T) {
	text, err := os.ReadFile("../origin/README.md")
	if err != nil {
		t.Fatal(err)
	}
	key := regexp.MustCompile(`base64:[A-Za-z0-9+/=]{50,}`).FindString(string(text))
	c, err := ParseURL("https://api.fastly.com/service/ID?verify-iss=fastly:ID", key)
	if err != nil {
		t.Fatal(err)
	}
	point, _ := c.key.(*ecdsa.PublicKey).Bytes() // 4, and then both coordinates
	for want, got := range map[string][]byte{
		"CKo5A1ebyFcnmVV8SE5On-8G81JyBjSvcrx4VLetWCg": point[1:33],
		"7gwJqaU6N8TP88--twjkwoB36f-pT3QsmI46nPhjO7M": point[33:],
	} {
		if got := base64.RawURLEncoding.EncodeToString(got); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestParseURL(t *testing.T) {
	const service = "https://api.fastly.com/service/ID"
	for _, tt := range []struct{ url, verifyKey, control, token, err string }{
		{LocalURL, "", "http://localhost:5561/", "", ""},
		{"http://localhost/a/?verify-key=a&key=k%2B", "", "http://localhost/a/", "k+", ""},
		{service + "?key=TOKEN&verify-iss=x", public, service, "TOKEN", ""},
		{service + "?verify-iss=x&verify-key=" + url.QueryEscape(public), "", service, "", ""},
		{"ftp://localhost/", "", "", "", "not an http or https URL"},
		{"http:///path", "", "", "", "not an http or https URL"},
		{"http://localhost:SECRET/", "", "", "", "not an http or https URL"},
		{service + "/{service-id}?key=SECRET", "", "", "", "still has {...}"},
		{service + "/publish/?key=SECRET", "", "", "", "leave it out"},
		{service + "?key=SECRET%", "", "", "", "escape the special characters"},
		{service + "?iss=me&key=SECRET", "", "", "", "only the parameters key, verify-iss and verify-key"},
		{service + "?verify-iss=x&key=SECRET", "", "", "", "set GRIP_VERIFY_KEY"},
		{service, "base64:", "", "", "not base64"},
		{service, "base64:SECRET!", "", "", "not base64"},
		{service, `{"kty":"oct","k":"SECRET"}`, "", "", "use the same key in PEM"},
		{service, "-----BEGIN PUBLIC KEY-----\nSECR\n-----END PUBLIC KEY-----\n", "", "", "ES256"},
		{service + "?key=SECRET", public, "", "", "add verify-iss=fastly:"},
	} {
		c, err := ParseURL(tt.url, tt.verifyKey)
		if !failed(err, tt.err) || err != nil && strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%q, %q: got %v, want %q without a key", tt.url, tt.verifyKey, err, tt.err)
		} else if err == nil && (c.ControlURI.String() != tt.control || c.Token != tt.token) {
			t.Errorf("%s: got %v, %q", tt.url, c.ControlURI, c.Token)
		}
	}
}
