// Command fetch prints what a URL answers, for the shells of test pods. The wget of Debian's static busybox crashes
// where there is no C library beside it: looking up names takes that library's modules.
package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

func fetch(url string) error {
	response, err := http.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(os.Stdout, response.Body); err != nil {
		return err
	}
	if response.StatusCode >= 400 {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return nil
}

func main() {
	seconds := flag.Int("t", 10, "seconds that all of it may take")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: fetch [-t SECONDS] URL")
		os.Exit(2)
	}
	http.DefaultClient.Timeout = time.Duration(*seconds) * time.Second
	if err := fetch(flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "fetch:", err)
		os.Exit(1)
	}
}
