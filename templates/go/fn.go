package main

// Called once a call, by several goroutines at once. `data` is the body, the string that comes back the answer; an error is a
// 500 with its text. What goes to standard error is the log. Other files and a go.mod may stand beside this one.
func fn(data string, headers map[string]string) (string, error) {
	if data == "" {
		data = "nobody"
	}
	return "hello " + data + "\n", nil
}
