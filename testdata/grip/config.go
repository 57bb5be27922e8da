package grip

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// Config describes the GRIP proxy of an origin.
type Config struct {
	// ControlURI is the URL for publishing, without "/publish/" at the end.
	ControlURI string
	// VerifyIssuer is the issuer that a request's signature must have. If it is empty, every issuer is accepted.
	VerifyIssuer string

	authorize func() (string, error) // returns the header Authorization for publishing; nil: no header
	verifyKey any                    // nil: requests are not verified
}

// ParseURL parses a GRIP_URL. That is the control URI of a GRIP proxy, with these parameters in its query:
//
//   - iss and key: publish with a JWT for this issuer, signed with this key (HS256)
//   - key without iss: publish with this token
//   - verify-iss and verify-key: the issuer and the key of the signatures on requests; if there is no
//     verify-key, but an iss, its key is used for both
//
// If the URI has a user and password, they are for publishing with basic authentication. If a key starts with
// "base64:", the rest is decoded first. A verify-key may be a public key in PEM, a JSON Web Key, or a secret. A key for
// signing must be a secret. A public key needs a verify-iss: Fanout's is the same for all services. If verifyKey is not empty, ParseURL uses it in place of verify-key; it is for the
// environment variable GRIP_VERIFY_KEY. An error says which part is wrong and what to change, and never shows a key.
// Source: https://github.com/fanout/js-grip#the-grip_url
func ParseURL(gripURL, verifyKey string) (*Config, error) {
	u, err := url.Parse(gripURL)
	if err != nil {
		return nil, errors.New("GRIP_URL is not a URL: escape the special characters in its keys, and check its port") // err would show the keys
	}
	if placeholder.MatchString(gripURL) {
		return nil, errors.New("GRIP_URL still has {...} in it: replace that with your service's id and API token")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("GRIP_URL is not an absolute http or https URL, such as http://localhost:5561/")
	}
	if strings.HasSuffix(strings.TrimSuffix(u.Path, "/"), "/publish") {
		return nil, errors.New("the path in GRIP_URL ends with /publish/: leave that out, the origin adds it")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("the query in GRIP_URL is malformed: escape the special characters in its keys")
	}
	for name := range query {
		if known := strings.ReplaceAll(strings.ToLower(name), "_", "-"); known != name && slices.Contains(parameters, known) {
			return nil, fmt.Errorf("GRIP_URL: write %s=, not %s=", known, name)
		}
	}
	take := func(name string) string {
		defer query.Del(name)
		return query.Get(name)
	}
	c := &Config{}
	issuer, key := take("iss"), take("key")
	c.VerifyIssuer = take("verify-iss")
	if v := take("verify-key"); verifyKey == "" {
		verifyKey = v
	}
	switch {
	case issuer != "":
		signKey, err := parseKey(key)
		if err != nil {
			return nil, fmt.Errorf("GRIP_URL: iss needs a key for signing: %w", err)
		}
		secret, ok := signKey.([]byte)
		if !ok {
			return nil, errors.New("GRIP_URL: iss needs a key for signing; it must be a secret, not a public key")
		}
		c.authorize = authorizeJWT(issuer, secret)
		if verifyKey == "" {
			verifyKey = key
		}
	case key != "":
		c.authorize = func() (string, error) { return "Bearer " + key, nil }
	case u.User != nil:
		password, _ := u.User.Password()
		basic := base64.StdEncoding.EncodeToString([]byte(u.User.Username() + ":" + password))
		c.authorize = func() (string, error) { return "Basic " + basic, nil }
	}
	if verifyKey != "" {
		if c.verifyKey, err = parseKey(verifyKey); err != nil {
			return nil, fmt.Errorf("GRIP_URL: verify-key: %w", err)
		}
		if _, secret := c.verifyKey.([]byte); !secret && c.VerifyIssuer == "" {
			return nil, errors.New("GRIP_URL has a public verify-key and no verify-iss: add verify-iss=fastly:{service-id}, because all Fanout services sign with the same key")
		}
	}
	u.User, u.RawQuery = nil, query.Encode()
	u.Path = strings.TrimSuffix(u.Path, "/")
	c.ControlURI = u.String()
	return c, nil
}

// parameters are the names of the parameters in a GRIP_URL.
var parameters = []string{"iss", "key", "verify-iss", "verify-key"}

var placeholder = regexp.MustCompile(`(?i)\{[a-z-]+\}|%7b[a-z-]+%7d`)

// decode64 decodes a key that starts with "base64:", in the standard or the URL alphabet, with or without padding.
func decode64(key string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(key, "base64:")
	if !ok {
		return []byte(key), nil
	}
	// In a query, an unescaped plus sign means a space.
	encoded = strings.TrimRight(strings.NewReplacer("-", "+", "_", "/", " ", "+").Replace(encoded), "=")
	decoded, err := base64.RawStdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errors.New("the text after base64: is not base64")
	}
	return decoded, nil
}

// parseKey parses a key for verifying or signing. It returns a public key, or a secret as []byte.
func parseKey(key string) (any, error) {
	raw, err := decode64(key)
	if err != nil {
		return nil, err
	}
	if len(raw) == 0 {
		return nil, errors.New("it is empty")
	}
	if block, _ := pem.Decode(raw); block != nil {
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, errors.New("the PEM has no public key")
		}
		return public, nil
	}
	if raw[0] != '{' || !json.Valid(raw) {
		return raw, nil
	}
	jwk, err := jwkset.NewJWKFromRawJSON(raw, jwkset.JWKMarshalOptions{Private: true}, jwkset.JWKValidateOptions{})
	if err != nil {
		return nil, fmt.Errorf("JSON Web Key: %w", err)
	}
	switch k := jwk.Key().(type) {
	case *ecdsa.PublicKey, *rsa.PublicKey, ed25519.PublicKey:
		return k, nil
	case []byte:
		if len(k) > 0 {
			return k, nil
		}
	}
	return nil, errors.New("the JSON Web Key is neither a public key nor a secret")
}

func authorizeJWT(issuer string, key []byte) func() (string, error) {
	return func() (string, error) {
		claims := jwt.RegisteredClaims{Issuer: issuer, ExpiresAt: jwt.NewNumericDate(time.Now().Add(10 * time.Minute))}
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(key)
		return "Bearer " + token, err
	}
}

// Verifies reports whether Verify checks signatures. For that, ParseURL needs a verify-key.
func (c *Config) Verifies() bool { return c.verifyKey != nil }

// Verify checks that the request came through the GRIP proxy. Its HeaderSig must be a JWT that is signed with the
// proxy's key, has the right issuer, and has not expired. If the Config has no key for verifying, any HeaderSig is
// accepted. An error wraps ErrNotProxied and has the reason.
// Source: https://pushpin.org/docs/protocols/grip/
func (c *Config) Verify(r *http.Request) error {
	sig := r.Header.Get(HeaderSig)
	if sig == "" {
		return fmt.Errorf("%w: it has no %s", ErrNotProxied, HeaderSig)
	}
	if c.verifyKey == nil {
		return nil
	}
	methods := []string{"ES256", "RS256", "EdDSA"}
	if _, secret := c.verifyKey.([]byte); secret {
		methods = []string{"HS256"} // a public key must never be used as a secret
	}
	options := []jwt.ParserOption{jwt.WithValidMethods(methods), jwt.WithExpirationRequired()}
	if c.VerifyIssuer != "" {
		options = append(options, jwt.WithIssuer(c.VerifyIssuer))
	}
	if _, err := jwt.Parse(sig, func(*jwt.Token) (any, error) { return c.verifyKey, nil }, options...); err != nil {
		return fmt.Errorf("%w: its %s: %w", ErrNotProxied, HeaderSig, err)
	}
	return nil
}
