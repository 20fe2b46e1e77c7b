// What an operator does to two agents: looks, starts by force, stops one in order. Real processes, the embedded machine.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import path from 'node:path';
import { expect } from 'chai';
import { parseCluster } from '../../src/config/cluster.js';
import type { DomainStatus } from '../../src/report/reports.js';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import { ENTRY } from './agent.js';
import { romulus } from './support.js';

const PATIENCE_MS = 30_000;

interface Answer {
  readonly ok: boolean;
  readonly code?: string;
  readonly message?: string;
  readonly domains?: readonly DomainStatus[];
}

class Cluster {
  readonly file: string;
  readonly #cleanup: Cleanup;

  private constructor(file: string, cleanup: Cleanup) {
    this.file = file;
    this.#cleanup = cleanup;
  }

  static async make(cleanup: Cleanup): Promise<Cluster> {
    const directory = await cleanup.directory();
    await mkdir(path.join(directory, 'witness'));
    const guest = { dirtyPages: 5, workingSetPages: 64, tickMs: 20 };
    const config = {
      witness: { kind: 'file', directory: 'witness' },
      hosts: {
        alpha: { address: '127.0.0.1', port: await freePort() },
        beta: { address: '127.0.0.1', port: await freePort() },
      },
      token: 'token',
      control: '{host}.sock',
      http: false,
      domains: [
        {
          name: 'web',
          hosts: ['alpha', 'beta'],
          hypervisor: { kind: 'embedded', memory: '4MiB', guest },
          checkpoint: { intervalMs: 20, slab: '1MiB' },
          heartbeat: { intervalMs: 100, timeoutMs: 5000 },
        },
      ],
    };
    parseCluster(config, 'alpha');
    const file = path.join(directory, 'cluster.yaml');
    await writeFile(file, JSON.stringify(config));
    return new Cluster(file, cleanup);
  }

  start(host: string): ChildProcess {
    const child = spawn(process.execPath, [ENTRY, 'agent', '--config', this.file, '--host', host], {
      stdio: 'ignore',
    });
    const closed = once(child, 'close');
    this.#cleanup.add(async () => {
      child.kill('SIGKILL');
      await closed;
    });
    return child;
  }

  async ask(host: string, ...verb: readonly string[]): Promise<{ exitCode: number | null; answer: Answer }> {
    const args = [...verb, '--config', this.file, '--host', host, '--json'];
    const { exitCode, stdout } = await romulus(args);
    return { exitCode, answer: JSON.parse(stdout === '' ? '{"ok":false}' : stdout) as Answer };
  }

  /** Asks until it is so. */
  async untilStatus(host: string, what: string, is: (status: DomainStatus) => boolean): Promise<void> {
    const deadlineMs = Date.now() + PATIENCE_MS;
    for (;;) {
      const { answer } = await this.ask(host, 'status');
      const [status] = answer.domains ?? [];
      if (status && is(status)) return;
      if (Date.now() > deadlineMs) throw new Error(`${host} is not ${what}: ${JSON.stringify(status)}`);
    }
  }
}

const isPaired = ({ phase, register }: DomainStatus) => phase === 'owner' && register?.mode === 'paired';
const waits = ({ phase, register, link }: DomainStatus) =>
  phase === 'standby' && register?.mode === 'paired' && link !== 'replicating';

describe('what is asked of an agent', function () {
  this.timeout(4 * PATIENCE_MS);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  it('an owner that is stopped in order ends, and starts the domain anew when it comes back', async () => {
    const cluster = await Cluster.make(cleanup);
    const alpha = cluster.start('alpha');
    cluster.start('beta');
    await cluster.untilStatus('alpha', 'paired', isPaired);
    const closed = once(alpha, 'close');
    alpha.kill('SIGTERM');
    let ended = false;
    void closed.then(() => (ended = true));
    await until('the agent ends', () => ended, PATIENCE_MS);
    expect(alpha.exitCode).to.equal(0);
    cluster.start('alpha');
    await cluster.untilStatus('alpha', 'paired', isPaired);
  });

  it('after both have died nobody starts it but the operator', async () => {
    const cluster = await Cluster.make(cleanup);
    const first = [cluster.start('alpha'), cluster.start('beta')];
    await cluster.untilStatus('alpha', 'paired', isPaired);
    for (const child of first) child.kill('SIGKILL');
    for (const child of first)
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');

    cluster.start('alpha');
    cluster.start('beta');
    await cluster.untilStatus('alpha', 'waiting', waits);
    const unforced = await romulus(['start', 'web', '--config', cluster.file, '--host', 'alpha']);
    expect(unforced).to.include({ exitCode: 2, stdout: '' });
    const forced = await cluster.ask('alpha', 'start', 'web', '--force');
    expect(forced).to.deep.equal({ exitCode: 0, answer: { ok: true } });
    await cluster.untilStatus('alpha', 'paired', isPaired);
    await cluster.untilStatus(
      'beta',
      'its standby',
      ({ role, link }) => role === 'standby' && link === 'replicating',
    );
  });

  it('a standby is tried, at its own host', async () => {
    const cluster = await Cluster.make(cleanup);
    for (const host of ['alpha', 'beta']) cluster.start(host);
    await cluster.untilStatus('alpha', 'paired', isPaired);
    const elsewhere = await cluster.ask('alpha', 'test-failover', 'web');
    expect(elsewhere.exitCode).to.equal(1);
    expect(elsewhere.answer.code).to.equal('NOT_STANDBY');
    expect(elsewhere.answer.message).to.include('beta');
    const tried = await cluster.ask('beta', 'test-failover', 'web', '--seconds', '1');
    expect(tried.answer).to.include({ ok: true, domain: 'web', host: 'beta', lives: true });
    expect(tried.exitCode).to.equal(0);
    await cluster.untilStatus('alpha', 'paired', isPaired);
  });

  it('what cannot be is refused, and says why', async () => {
    const cluster = await Cluster.make(cleanup);
    const nobody = await cluster.ask('alpha', 'status');
    expect(nobody.exitCode).to.equal(2);
    cluster.start('alpha');
    await cluster.untilStatus('alpha', 'its owner', ({ phase }) => phase === 'owner');
    const forced = await cluster.ask('alpha', 'start', 'web', '--force');
    expect(forced).to.deep.include({ exitCode: 1 });
    expect(forced.answer.code).to.equal('NOT_STARTED');
    const unknown = await cluster.ask('alpha', 'switchover', 'mail');
    expect(unknown.exitCode).to.equal(1);
    expect(unknown.answer.code).to.equal('UNKNOWN_DOMAIN');
    const alone = await cluster.ask('alpha', 'switchover', 'web');
    expect(alone.exitCode).to.equal(1);
    expect(alone.answer.code).to.equal('NOT_PAIRED');
  });
});

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  return port;
}
