// The way to the witness, as a program on its host: it answers late, or not at all, as the test says over IPC. What is
// asked arrives always.
//
//   hosts ─▶ LISTEN ─ proxy ─▶ TARGET etcd
//         ◀─ held ───────────◀
//
//   witness-proxy.js ADDRESS LISTEN TARGET

import { connect, createServer, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';

/** Replies come so much later; null: they do not come. */
export interface ProxyOrder {
  readonly delayMs: number | null;
}

let delayMs: ProxyOrder['delayMs'] = 0;

function serve(host: Socket, target: number): void {
  const etcd = connect(target, '127.0.0.1');
  const later = (what: () => void): void => {
    if (delayMs !== null) setTimeout(what, delayMs);
  };
  host.on('data', (bytes) => void etcd.write(bytes));
  etcd.on('data', (bytes) => later(() => host.writable && host.write(bytes)));
  // Behind what it has said.
  etcd.on('close', () => later(() => host.destroy()));
  // Who has given up waiting has asked nevertheless: what it sent is on its way to the etcd.
  host.on('close', () => etcd.end());
  for (const socket of [host, etcd]) {
    socket.setNoDelay(true);
    socket.on('error', () => undefined); // 'close' follows
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , address = '', listen = '', target = ''] = process.argv;
  process.on('message', (order: ProxyOrder) => ({ delayMs } = order));
  process.on('disconnect', () => process.exit());
  createServer((host) => serve(host, Number(target))).listen(Number(listen), address, () =>
    process.send?.('ready'),
  );
}
