// The other end of a link in a process of its own, to be stopped and killed. Says what happens over IPC.
//
//   peer.js secondary URL      dials, reads, acknowledges
//   peer.js primary TIMEOUT    listens, sends checkpoints of 8 pieces of 1 MiB without end

import { pathToFileURL } from 'node:url';
import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { PrimaryLink, SecondaryLink } from '../../src/channel/contract.js';
import { codeOf } from '../../src/errors.js';
import { dial } from '../../src/channel/dial/dialer.js';
import { RecordType } from '../../src/stream/format.js';
import { TestPrimary, bulkRecord, checkpointRecord, helloOf, pieceOf, streamHeaders } from './support.js';

export type PeerReport =
  | { readonly kind: 'listening'; readonly port: number }
  | { readonly kind: 'linked' }
  | { readonly kind: 'heard' }
  | { readonly kind: 'lost'; readonly code: string }
  | { readonly kind: 'committed'; readonly epoch: number };

/** A child process that runs this file, and what it has reported. */
export class Peer {
  readonly process: ChildProcess;
  readonly reports: PeerReport[] = [];

  constructor(...args: string[]) {
    this.process = fork(fileURLToPath(import.meta.url), args, { stdio: 'inherit' });
    this.process.on('message', (report) => this.reports.push(report as PeerReport));
  }

  find<Kind extends PeerReport['kind']>(kind: Kind): Extract<PeerReport, { kind: Kind }> | undefined {
    for (const report of this.reports) {
      if (report.kind === kind) return report as Extract<PeerReport, { kind: Kind }>;
    }
    return undefined;
  }

  /** Ends the process, stopped or not. */
  async kill(): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const exited = new Promise((resolve) => this.process.once('exit', resolve));
    this.process.kill('SIGKILL');
    await exited;
  }
}

function report(what: PeerReport): void {
  process.send?.(what);
}

function watch(link: PrimaryLink | SecondaryLink): void {
  report({ kind: 'linked' });
  link.events$.subscribe((event) => {
    if (event.kind === 'heard') report(event);
    else if (event.kind === 'lost') report({ kind: 'lost', code: codeOf(event.error) });
  });
}

async function secondary(url: string): Promise<void> {
  const link = await dial({ url, hello: helloOf() });
  watch(link);
  for (;;) {
    const record = await link.source.read();
    if (record === null) return;
    if (record.type !== RecordType.CHECKPOINT) continue;
    const { epoch } = await link.boundary();
    await link.acknowledge(epoch);
    report({ kind: 'committed', epoch });
  }
}

async function primary(heartbeatTimeoutMs: number): Promise<void> {
  const test = await new TestPrimary({ heartbeatTimeoutMs }).start();
  report({ kind: 'listening', port: test.port });
  for (;;) {
    const link = await test.nextLink();
    watch(link);
    try {
      await link.sink.write(pieceOf(streamHeaders));
      for (let epoch = 0; ; epoch++) {
        for (let i = 0; i < 8; i++) await link.sink.write(pieceOf(bulkRecord(1 << 20, epoch % 251)));
        await link.sink.write(pieceOf(checkpointRecord));
        await link.sink.boundary(epoch, false);
        await link.sink.drain();
      }
    } catch (thrown) {
      report({ kind: 'lost', code: codeOf(thrown) });
    }
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  process.once('disconnect', () => process.exit(1));
  const [role, argument] = process.argv.slice(2);
  if (role === 'secondary') await secondary(argument ?? '');
  else await primary(Number(argument));
}
