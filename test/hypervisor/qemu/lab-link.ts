// The network between the two agents of one host, as a program in the lab: a proxy that is cut, silent or well, as the
// test says over IPC; and what somebody who supervises the two would see, 20 times a second.
//
//   secondary ──▶ 7301 proxy ──▶ 7300 primary            /readyz of both ──▶ the test
//
//   lab-link.js        says what comes (LinkNews), obeys (LinkOrder). Its end is the lab's

import { get } from 'node:http';
import { fileURLToPath } from 'node:url';
import type { ChildProcess } from 'node:child_process';
import { Proxy } from '../../service/proxy.js';
import type { Lab } from './lab.js';

export const PRIMARY_PORT = 7300;
export const LINK_PORT = 7301;
const FILE = fileURLToPath(import.meta.url);
const READY_URLS = {
  primary: 'http://127.0.0.1:9300/readyz',
  secondary: 'http://127.0.0.1:9301/readyz',
} as const;
const READY_EVERY_MS = 50;

export type Side = keyof typeof READY_URLS;

export type LinkNews =
  | { readonly kind: 'listening' }
  /** Times in milliseconds since 1970. */
  | { readonly kind: 'connection'; readonly atMs: number }
  /** As it was when it was asked for, `atMs` or later. `text`: what was answered, or why nothing was. */
  | {
      readonly kind: 'ready';
      readonly side: Side;
      readonly ready: boolean;
      readonly text: string;
      readonly atMs: number;
    };

export interface LinkOrder {
  readonly mode?: 'forward' | 'silent';
  /** Ends what stands. */
  readonly cut?: boolean;
  /** For the next connection only: the octets towards the secondary after which it is cut. 0: as it comes. */
  readonly cutNextAfterBytes?: number;
}

/** The program, seen from the test. */
export class Link {
  /** What /readyz said last. */
  readonly ready = new Map<Side, Extract<LinkNews, { kind: 'ready' }>>();
  /** When each connection came. */
  readonly connections: number[] = [];
  /** A side is ready, or is not any more. */
  changed: (news: Extract<LinkNews, { kind: 'ready' }>) => void = () => undefined;
  listening = false;
  readonly #process: ChildProcess;

  constructor(lab: Lab) {
    this.#process = lab.spawn('switch', process.execPath, [FILE], ['ignore', 'inherit', 'inherit', 'ipc']);
    this.#process.on('message', (message) => this.#hear(message as LinkNews));
  }

  order(order: LinkOrder): void {
    this.#process.send(order);
  }

  #hear(news: LinkNews): void {
    if (news.kind === 'listening') this.listening = true;
    else if (news.kind === 'connection') this.connections.push(news.atMs);
    else {
      const before = this.ready.get(news.side);
      this.ready.set(news.side, news);
      if (before?.ready !== news.ready) this.changed(news);
    }
  }
}

function say(news: LinkNews): void {
  process.send?.(news);
}

function askReady(side: Side): void {
  const atMs = Date.now();
  let answered = false;
  const answer = (ready: boolean, text: string): void => {
    if (answered) return;
    answered = true;
    say({ kind: 'ready', side, ready, text: text.trim(), atMs });
    setTimeout(() => askReady(side), READY_EVERY_MS);
  };
  const request = get(READY_URLS[side], (response) => {
    let text = '';
    response.setEncoding('utf8').on('data', (piece: string) => (text += piece));
    response.on('close', () => answer(response.statusCode === 200, text));
  });
  request.on('error', (error) => answer(false, error.message));
}

async function serve(): Promise<void> {
  const proxy = new Proxy(PRIMARY_PORT);
  proxy.accepted = () => {
    say({ kind: 'connection', atMs: Date.now() });
    if (proxy.cutAfterBytes === 0) proxy.cut();
    proxy.cutAfterBytes = Infinity;
  };
  process.on('message', ({ mode, cut = false, cutNextAfterBytes }: LinkOrder) => {
    if (mode !== undefined) proxy.mode = mode;
    if (cutNextAfterBytes !== undefined) proxy.cutAfterBytes = cutNextAfterBytes;
    if (cut) proxy.cut();
  });
  process.once('disconnect', () => process.exit());
  await proxy.listen(LINK_PORT);
  say({ kind: 'listening' });
  askReady('primary');
  askReady('secondary');
}

if (process.argv[1] === FILE) await serve();
