# Alive is whoever answers. One that loads its data, or has lost its primary, would only lose more by a restart; and a
# password that is just being changed says nothing about the server.
answer=$(ask -h "$own" PING) || true
case $answer in
  *PONG* | *LOADING* | *MASTERDOWN* | *BUSY* | *NOAUTH* | *WRONGPASS* | *NOPERM*) exit 0 ;;
esac
echo "$answer"
exit 1
