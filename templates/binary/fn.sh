#!/bin/sh
# Runs once a call: the body is on standard input, standard output is the answer, standard error is the log.
# Another exit code than 0 is a failure. It may start any program that is in this folder or in the image.
body=$(cat)
echo "hello ${body:-nobody}"
