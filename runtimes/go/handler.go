// Runs the function fn(data, headers) of fn.go: HTTP/1.1 on the unix socket TINYFAAS_SOCKET, else on TCP 8000.
//
// It is compiled into the function's package, so all names here begin with tinyfaas. RAM decides what is imported: net/http would
// double what an idle handler takes.

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// Longest request head in bytes: the front doors' bound of 16 KiB, and room for the fields that the runtime adds.
	tinyfaasMaxHead = 20 * 1024
	// Longest line of a chunk's size, and all trailer fields together, in bytes.
	tinyfaasMaxOverhead = 4096
	tinyfaasPlain       = "text/plain; charset=utf-8"
)

// A request that cannot be read: the status and the line of text to answer, and then the connection is closed.
type tinyfaasRefused struct {
	status int
	text   string
}

func (r tinyfaasRefused) Error() string { return r.text }

type tinyfaasRequest struct {
	method, path string
	headers      map[string]string
	body         string
	keep         bool
}

func main() {
	listener, err := tinyfaasListen()
	if err != nil {
		fmt.Fprintln(os.Stderr, "handler: cannot listen:", err)
		os.Exit(1)
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	go func() {
		<-ended
		os.Exit(0)
	}()
	for {
		conn, err := listener.Accept()
		if err != nil {
			// No file descriptor left: others have to end first.
			time.Sleep(50 * time.Millisecond)
			continue
		}
		go tinyfaasServe(conn)
	}
}

func tinyfaasListen() (net.Listener, error) {
	if path := os.Getenv("TINYFAAS_SOCKET"); path != "" {
		return net.Listen("unix", path)
	}
	return net.Listen("tcp", ":8000")
}

func tinyfaasServe(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		request, err := tinyfaasRead(in, conn)
		if err != nil {
			if refused, ok := err.(tinyfaasRefused); ok {
				tinyfaasReply(conn, refused.status, refused.text+"\n", false)
			}
			return
		}
		status, body := tinyfaasAnswer(request)
		if tinyfaasReply(conn, status, body, request.keep) != nil || !request.keep {
			return
		}
	}
}

func tinyfaasAnswer(request *tinyfaasRequest) (int, string) {
	path, _, _ := strings.Cut(request.path, "?")
	switch path {
	case "/health":
		if request.method != "GET" {
			return 405, "/health takes GET\n"
		}
		return 200, "OK\n"
	case "/fn":
		if request.method != "POST" {
			return 405, "/fn takes POST\n"
		}
		result, err := tinyfaasCall(request)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 500, err.Error()
		}
		return 200, result
	}
	return 404, "there are /health and /fn\n"
}

// Calls the function; one that panics has failed, and the handler lives on.
func tinyfaasCall(request *tinyfaasRequest) (result string, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("panic: %v", reason)
		}
	}()
	return fn(request.body, request.headers)
}

func tinyfaasReply(conn net.Conn, status int, body string, keep bool) error {
	head := "HTTP/1.1 " + strconv.Itoa(status) + " \r\ncontent-length: " + strconv.Itoa(len(body)) + "\r\n"
	if len(body) > 0 {
		head += "content-type: " + tinyfaasPlain + "\r\n"
	}
	if !keep {
		head += "connection: close\r\n"
	}
	buffers := net.Buffers{[]byte(head + "\r\n"), []byte(body)}
	_, err := buffers.WriteTo(conn)
	return err
}

// The next line without its end, of which most bytes are left for this part of the message.
func tinyfaasLine(in *bufio.Reader, left *int, tooLong tinyfaasRefused) (string, error) {
	var line []byte
	for {
		piece, err := in.ReadSlice('\n')
		*left -= len(piece)
		if *left < 0 {
			return "", tooLong
		}
		line = append(line, piece...)
		if err == nil {
			break
		}
		if err != bufio.ErrBufferFull {
			return "", err
		}
	}
	if len(line) < 2 || line[len(line)-2] != '\r' {
		return "", tinyfaasRefused{400, "lines of a message end with CR LF"}
	}
	return string(line[:len(line)-2]), nil
}

func tinyfaasRead(in *bufio.Reader, conn net.Conn) (*tinyfaasRequest, error) {
	left := tinyfaasMaxHead
	tooLong := tinyfaasRefused{431, "the head of a request is at most 20480 bytes"}
	line, err := tinyfaasLine(in, &left, tooLong)
	for err == nil && line == "" {
		// An empty line before a request is passed over, RFC 9112 section 2.2.
		line, err = tinyfaasLine(in, &left, tooLong)
	}
	if err != nil {
		return nil, err
	}
	words := strings.Split(line, " ")
	if len(words) != 3 || !strings.HasPrefix(words[1], "/") || words[2] != "HTTP/1.1" && words[2] != "HTTP/1.0" {
		return nil, tinyfaasRefused{400, "the request line needs a method, a path and the version HTTP/1.1"}
	}
	request := &tinyfaasRequest{method: words[0], path: words[1], headers: map[string]string{}, keep: words[2] == "HTTP/1.1"}
	length, chunked := int64(-1), false
	for {
		line, err := tinyfaasLine(in, &left, tooLong)
		if err != nil {
			return nil, err
		}
		if line == "" {
			break
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") || strings.ContainsAny(line, "\x00\r") {
			return nil, tinyfaasRefused{400, "a header field is a name, a colon and a value"}
		}
		name, value = textproto.CanonicalMIMEHeaderKey(name), strings.Trim(value, " \t")
		switch name {
		case "Content-Length":
			n, err := strconv.ParseUint(value, 10, 62)
			if err != nil || length >= 0 || value[0] == '+' {
				return nil, tinyfaasRefused{400, "Content-Length is one decimal number"}
			}
			length = int64(n)
		case "Transfer-Encoding":
			if chunked || !strings.EqualFold(value, "chunked") {
				return nil, tinyfaasRefused{400, "the only transfer coding known here is chunked"}
			}
			chunked = true
		case "Connection":
			for _, option := range strings.Split(strings.ToLower(value), ",") {
				switch strings.TrimSpace(option) {
				case "close":
					request.keep = false
				case "keep-alive":
					request.keep = true
				}
			}
		}
		// RFC 9110 section 5.3; cookies are joined as RFC 6265 has them.
		if before, twice := request.headers[name]; twice {
			comma := ", "
			if name == "Cookie" {
				comma = "; "
			}
			value = before + comma + value
		}
		request.headers[name] = value
	}
	if chunked && length >= 0 {
		return nil, tinyfaasRefused{400, "Content-Length and Transfer-Encoding exclude each other"}
	}
	if strings.EqualFold(request.headers["Expect"], "100-continue") && in.Buffered() == 0 {
		if _, err := io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return nil, err
		}
	}
	var body strings.Builder
	if chunked {
		err = tinyfaasChunks(in, &body)
	} else if length > 0 {
		_, err = io.CopyN(&body, in, length)
	}
	request.body = body.String()
	return request, err
}

func tinyfaasChunks(in *bufio.Reader, body *strings.Builder) error {
	tooLong := tinyfaasRefused{400, "a line of the chunked body is too long"}
	for {
		left := tinyfaasMaxOverhead
		line, err := tinyfaasLine(in, &left, tooLong)
		if err != nil {
			return err
		}
		digits, _, _ := strings.Cut(line, ";")
		size, err := strconv.ParseUint(digits, 16, 60)
		if err != nil || digits[0] == '+' {
			return tinyfaasRefused{400, "the size of a chunk is a hexadecimal number"}
		}
		if size == 0 {
			break
		}
		if _, err := io.CopyN(body, in, int64(size)); err != nil {
			return err
		}
		left = 2
		if line, err := tinyfaasLine(in, &left, tinyfaasRefused{400, "a chunk ends with CR LF"}); err != nil || line != "" {
			return tinyfaasRefused{400, "a chunk ends with CR LF"}
		}
	}
	left := tinyfaasMaxOverhead
	for {
		if line, err := tinyfaasLine(in, &left, tooLong); err != nil || line == "" {
			return err
		}
	}
}
