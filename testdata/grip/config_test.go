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
	const jwk = `{"kty":"EC","crv":"P-256","x":"TCXHb3KMCQ4DWDA6kqm_rZJFdReuGjuqV8OLTJu6nHc","y":"k0s4qkoDBbkXN5PPb7dE4PisLurAomIMKdlKkj9mx3M"}`
	const secret = "changeme"
	valid := token(t, "HS256", []byte(secret), "me", time.Minute)
	es256 := token(t, "ES256", private, "me", time.Minute)
	tests := []struct {
		name, verifyKey, sig, err string
	}{
		{"secret", secret, valid, ""},
		{"secret in base64", "base64:Y2hhbmdlbWU=", valid, ""},
		{"base64 for URLs, unpadded", "base64:-__-_w", token(t, "HS256", []byte("\xfb\xff\xfe\xff"), "me", time.Minute), ""},
		{"secret as a JSON Web Key", `{"kty":"oct","k":"Y2hhbmdlbWU"}`, valid, ""},
		{"what Publish sends", secret, sign("me", []byte(secret)), ""},
		{"public key in PEM", public, es256, ""},
		{"public key in PEM in base64", "base64:" + base64.StdEncoding.EncodeToString([]byte(public)), es256, ""},
		{"public key as a JSON Web Key", jwk, es256, ""},
		{"public key as the secret", public, token(t, "HS256", []byte(public), "me", time.Minute), "signing method HS256 is invalid"},
		{"another secret", secret, token(t, "HS256", []byte("another"), "me", time.Minute), "signature is invalid"},
		{"another issuer", secret, token(t, "HS256", []byte(secret), "you", time.Minute), "invalid issuer"},
		{"expired", secret, token(t, "HS256", []byte(secret), "me", -time.Minute), "expired"},
		{"never expires", secret, token(t, "HS256", []byte(secret), "me", 0), "exp claim is required"},
		{"unsigned", secret, token(t, "none", jwt.UnsafeAllowNoneSignatureType, "me", time.Minute), "signing method none is invalid"},
		{"no JWT", secret, "x.y.z", "malformed"},
		{"none", secret, "", "no Grip-Sig"},
		{"none, and no key", "", "", "no Grip-Sig"},
		{"any, and no key", "", "x", ""},
	}
	for _, tt := range tests {
		c, err := ParseURL("http://localhost:5561/?verify-iss=me", tt.verifyKey)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Verify(&http.Request{Header: http.Header{"Grip-Sig": {tt.sig}}}); !failed(err, tt.err) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.err)
		}
	}
}

// fastly is Fanout's public key.
const fastly = `{"kty":"EC","crv":"P-256","x":"CKo5A1ebyFcnmVV8SE5On-8G81JyBjSvcrx4VLetWCg","y":"7gwJqaU6N8TP88--twjkwoB36f-pT3QsmI46nPhjO7M"}`

func TestParseURL(t *testing.T) {
	for _, tt := range []struct {
		url, verifyKey         string
		control, authorization string // authorization is the beginning of the header
		verifies               bool
	}{
		{"http://localhost:5561/", "", "http://localhost:5561/", "", false},
		{"http://localhost:5561/a/?b=c&key=k", "", "http://localhost:5561/a/?b=c", "Bearer k", false},
		{"http://u:p@localhost/", "", "http://localhost/", "Basic dTpw", false},
		{"http://localhost/?iss=me&key=base64:Y2hhbmdlbWU%3D", "", "http://localhost/", "Bearer eyJ", true},
		{"https://api.fastly.com/service/ID?key=TOKEN&verify-iss=fastly:ID", fastly, "https://api.fastly.com/service/ID", "Bearer TOKEN", true},
		{
			"https://api.fastly.com/service/ID?key=TOKEN&verify-iss=fastly:ID&verify-key=" + url.QueryEscape(fastly), "",
			"https://api.fastly.com/service/ID", "Bearer TOKEN", true,
		},
	} {
		c, err := ParseURL(tt.url, tt.verifyKey)
		if err != nil {
			t.Errorf("%s: %v", tt.url, err)
			continue
		}
		authorization := ""
		if c.authorize != nil {
			authorization = c.authorize()
		}
		if got := c.ControlURI.String(); got != tt.control || c.Verifies() != tt.verifies || !strings.HasPrefix(authorization, tt.authorization) {
			t.Errorf("%s: got %q, %t, %q", tt.url, got, c.Verifies(), authorization)
		}
	}
	for _, bad := range []struct{ url, verifyKey, err string }{
		{"", "", "absolute"},
		{"localhost:5561", "", "absolute"},
		{"ftp://localhost/", "", "absolute"},
		{"http:///path", "", "absolute"},
		{"http://localhost:SECRET/", "", "not a URL"},
		{"https://api.fastly.com/service/{service-id}?key=SECRET", "", "still has {...}"},
		{"https://api.fastly.com/service/ID?key=%7Bapi-token%7D", "", "still has {...}"},
		{"https://api.fastly.com/service/ID/publish/?key=SECRET", "", "leave it out"},
		{"https://api.fastly.com/service/ID?key=SECRET%", "", "malformed"},
		{"https://api.fastly.com/service/ID?key=SECRET;a", "", "malformed"},
		{"https://api.fastly.com/service/ID?Key=SECRET", "", "write key=, not Key="},
		{"http://localhost/?verify_key=SECRET", "", "write verify-key=, not verify_key="},
		{"http://localhost/?iss=me", "", "needs a key"},
		{"http://localhost/?iss=me&key=base64:SECRET!", "", "not base64"},
		{"http://localhost/?iss=me&key=base64:", "", "empty"},
		{"http://localhost/?iss=me&key=" + url.QueryEscape(fastly), "", "must be a secret"},
		{"http://localhost/", "base64:", "empty"},
		{"http://localhost/", "base64:SECRET!", "not base64"},
		{"http://localhost/", `{"kty":"oct","k":"SECRET!"}`, "JSON Web Key"},
		{"http://localhost/", `{"kty":"oct","k":""}`, "JSON Web Key"},
		{"http://localhost/", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "PEM"},
		{"http://localhost/", fastly, "add verify-iss=fastly:{service-id}"},
		{"http://localhost/?verify-iss=&iss=me&key=SECRET", fastly, "add verify-iss=fastly:{service-id}"},
	} {
		_, err := ParseURL(bad.url, bad.verifyKey)
		if err == nil || !strings.Contains(err.Error(), bad.err) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%q, %q: got %v, want an error with %q and without a key", bad.url, bad.verifyKey, err, bad.err)
		}
	}
}

// token returns a JWT that expires after life. It never expires if life is 0.
func token(t *testing.T, alg string, key any, issuer string, life time.Duration) string {
	t.Helper()
	claims := jwt.MapClaims{"iss": issuer}
	if life != 0 {
		claims["exp"] = time.Now().Add(life).Unix()
	}
	signed, err := jwt.NewWithClaims(jwt.GetSigningMethod(alg), claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}
