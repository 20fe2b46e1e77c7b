// The process that writes to files for the agent. Opening or writing a file may take for ever (a server that is gone, a
// file system that is frozen); here that costs a thread which nothing else needs. Ours is the agent's child and lives
// for as long as it does: when the agent is gone, what it had asked for is finished, and a hung request does not keep us.
//
//   agent ──request──▶ one queue for each file ──▶ a thread of libuv's ──▶ the file

import { close, constants, open, write } from 'node:fs';
import { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { asError, codeOf } from '../errors.js';
import { monotonicMs } from '../flow/clock.js';
import { InOrder } from '../flow/in-order.js';
import {
  encodeMessage,
  INHERITED_FD,
  MessageReader,
  SOCKET_FD,
  type FileReply,
  type FileRequest,
  type FileTarget,
} from './file-messages.js';

const calls = { open: promisify(open), write: promisify(write), close: promisify(close) };

/** FIFOs and terminals do not hang, they say that they are full; and a terminal does not become ours. */
const FLAGS =
  constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NONBLOCK | constants.O_NOCTTY;
const MODE = 0o600;
/** Between attempts to write to what is full. */
const FULL_MS = 10;
/** For what is under way when the agent has gone. */
const LAST_MS = 2000;

interface File {
  fd: number | null;
  ours: boolean;
  closing: boolean;
  readonly order: InOrder;
}

const agent = new Socket({ fd: SOCKET_FD });
const files = new Map<number, File>();
let agentHasGone = false;

async function opened(file: File, target: FileTarget): Promise<number> {
  if (file.fd !== null) return file.fd;
  file.ours = 'path' in target;
  if ('fd' in target) return (file.fd = INHERITED_FD[target.fd]);
  // What was open is finished, but nothing is made any more.
  if (agentHasGone) throw new Error('the agent has gone');
  return (file.fd = await calls.open(target.path, FLAGS, MODE));
}

async function closed(file: File): Promise<void> {
  const { fd, ours } = file;
  file.fd = null;
  if (fd !== null && ours) await calls.close(fd);
}

async function written(fd: number, bytes: Uint8Array): Promise<number> {
  try {
    return (await calls.write(fd, bytes)).bytesWritten;
  } catch (error) {
    if (codeOf(error) === 'EAGAIN') return 0;
    throw error;
  }
}

/** `took`: octets, as they are taken. */
async function carryOut(request: FileRequest, file: File, took: (count: number) => void): Promise<void> {
  switch (request.kind) {
    case 'open':
      await opened(file, request.target);
      return;
    case 'write': {
      const fd = await opened(file, request.target);
      for (let left = request.bytes; ;) {
        if (monotonicMs() > request.untilMs) return;
        const count = await written(fd, left);
        took(count);
        left = left.subarray(count);
        if (left.length === 0 || !request.whole || file.closing) return;
        if (count === 0) await sleep(FULL_MS);
      }
    }
    case 'close':
      files.delete(request.file);
      await closed(file);
  }
}

async function answer(request: FileRequest, file: File): Promise<void> {
  let taken = 0;
  let error: FileReply['error'];
  try {
    await carryOut(request, file, (count) => (taken += count));
  } catch (thrown) {
    error = { code: codeOf(thrown), message: asError(thrown).message };
    // Opened anew the next time: a FIFO may have a reader again, the path may name another file.
    await closed(file).catch(() => undefined);
  }
  const reply: FileReply = { id: request.id, taken, ...(error && { error }) };
  if (!agentHasGone) agent.write(encodeMessage(reply));
}

function take(request: FileRequest): void {
  let file = files.get(request.file);
  if (!file) {
    file = { fd: null, ours: false, closing: false, order: new InOrder() };
    files.set(request.file, file);
  }
  const mine = file;
  if (request.kind === 'close') mine.closing = true;
  void mine.order.do(() => answer(request, mine));
}

const requests = new MessageReader<FileRequest>();
agent.on('data', (chunk: Buffer) => {
  for (const request of requests.read(chunk)) take(request);
});
agent.on('error', () => undefined); // 'close' follows
agent.on('close', () => {
  agentHasGone = true;
  for (const file of files.values()) file.closing = true;
  // Not exit(): that would wait for the threads.
  const end = () => process.kill(process.pid, 'SIGKILL');
  setTimeout(end, LAST_MS);
  void Promise.all([...files.values()].map(({ order }) => order.settled())).then(end);
});
