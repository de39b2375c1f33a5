"""A chat client: python chat.py USER ACCOUNT. What you type reaches every client of the account."""

import asyncio, base64, hashlib, hmac, json, sys
from centrifuge import Client, SubscriptionEventHandler

SECRET = b"only-for-trying-tokens"  # of examples/relay.yaml; in real life your backend signs the tokens


def token(user, account):
    part = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")
    body = part(b'{"alg":"HS256"}') + b"." + part(json.dumps({"sub": user, "account": account}).encode())
    return (body + b"." + part(hmac.new(SECRET, body, hashlib.sha256).digest())).decode()


class Servers(SubscriptionEventHandler):
    async def on_join(self, ctx):
        print("joined:", ctx.info.user, flush=True)

    async def on_leave(self, ctx):
        print("left:", ctx.info.user, flush=True)


class Chat(SubscriptionEventHandler):
    async def on_publication(self, ctx):
        sender = ctx.pub.info.user if ctx.pub.info else "server"
        print(f"{sender}: {ctx.pub.data['text']}", flush=True)


async def main(user, account):
    client = Client("ws://localhost:8000/connection/websocket", token=token(user, account))
    servers = client.new_subscription("servers:all", Servers())
    chat = client.new_subscription("chat:all", Chat())
    await client.connect()
    await servers.subscribe()
    await chat.subscribe()
    presence = await servers.presence()
    print("online:", *sorted({info.user for info in presence.clients.values()}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        await chat.publish({"text": line.strip()})
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
