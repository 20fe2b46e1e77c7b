// Signals, as an operating system, a terminal and a shell send them: to agents and jobs, real processes.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, mkdir, readdir, readFile, rename } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import tls from 'node:tls';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { Cleanup } from '../support/cleanup.js';
import { childrenOf, isAlive } from '../support/processes.js';
import { until } from '../support/until.js';
import { fileText } from '../service/world.js';
import { Agent, clusterOf, commandOf, ENTRY, type ClusterChanges } from './agent.js';

const FIXTURES = fileURLToPath(new URL('../../../test/fixtures/tls', import.meta.url));
/** What ends neither side, and says nothing to the other. */
const SPARED = ['SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGALRM', 'SIGVTALRM', 'SIGIO', 'SIGPIPE'] as const;

function ticksOf(text: string): number[] {
  return [...text.matchAll(/^tick (\d+) ok$/gm)].map(([, number]) => Number(number));
}

describe('signals', function () {
  this.timeout(120_000);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  async function pair(changes: ClusterChanges = {}, wrapped: readonly string[] = []) {
    const cluster = await clusterOf(cleanup, changes);
    const primary = await Agent.start(cleanup, 'alpha', cluster, wrapped);
    await primary.listening();
    const secondary = await Agent.start(cleanup, 'beta', cluster, wrapped);
    await secondary.more('commit');
    return { primary, secondary };
  }

  it(`${SPARED.join(', ')} end neither side, and open no debugger; not under nohup either`, async () => {
    const { primary, secondary } = await pair({}, ['nohup']);
    for (const signal of SPARED) {
      for (const agent of [primary, secondary]) agent.process.kill(signal);
      await secondary.more('commit');
    }
    await until('the reloads', () =>
      [primary, secondary].every((agent) => agent.says(/reloaded/).length > 0),
    );
    expect([primary.lives, secondary.lives]).to.deep.equal([true, true]);
    expect(primary.stderr + secondary.stderr).to.not.match(/Debugger listening|link lost/);
    expect(secondary.count('failover')).to.equal(0);
  });

  it('SIGQUIT ends a primary in order: the secondary stays a standby, and ends in order, too', async () => {
    const { primary, secondary } = await pair();
    primary.process.kill('SIGQUIT');
    expect(await primary.ended(), primary.stderr).to.equal(0);
    await until('the secondary has heard', () => secondary.says(/bye shutdown/).length > 0);
    secondary.process.kill('SIGQUIT');
    expect(await secondary.ended(), secondary.stderr).to.equal(0);
    expect(secondary.count('failover')).to.equal(0);
  });

  it('SIGUSR1 opens no debugger while they start', async () => {
    // One that comes before Node has a handler ends the process, and none of our code ran: those do not count.
    for (let delayMs = 5; delayMs <= 85; delayMs += 40) {
      const agent = await Agent.start(cleanup, 'alpha', await clusterOf(cleanup));
      await new Promise((resolve) => setTimeout(resolve, delayMs));
      agent.process.kill('SIGUSR1');
      await until('it has started, or not', () => !agent.lives || agent.count('listening') > 0);
      const [, port] = /Debugger listening on ws:\/\/[^:]+:(\d+)/.exec(agent.stderr) ?? [];
      if (agent.lives && port !== undefined) {
        const knock = net.connect(Number(port), '127.0.0.1');
        const event = await new Promise((resolve) => {
          knock.once('connect', () => resolve('open')).once('error', () => resolve('closed'));
        });
        knock.destroy();
        expect(event, `after ${delayMs} ms`).to.equal('closed');
      }
      await agent.kill();
    }
  });

  describe('SIGHUP', () => {
    it('opens the files of the output anew: nothing is lost, nothing is there twice', async () => {
      const directory = await cleanup.directory();
      const [console, tap] = ['console', 'tap'].map((name) => path.join(directory, name)) as [string, string];
      const { primary } = await pair({ output: { console: { file: console }, tap } });
      const bothWritten = () =>
        until('both files have something', () =>
          [console, tap].every((file) => ticksOf(fileText(file)).length > 0),
        );
      for (const round of [1, 2, 3]) {
        await bothWritten();
        for (const file of [console, tap]) await rename(file, `${file}.${round}`);
        primary.process.kill('SIGHUP');
        await until('the reload', () => primary.says(/reloaded/).length === round);
      }
      await bothWritten();
      primary.process.kill('SIGTERM');
      await primary.ended();
      for (const file of [console, tap]) {
        const parts = await Promise.all(
          [`${file}.1`, `${file}.2`, `${file}.3`, file].map((part) => readFile(part, 'utf8')),
        );
        const ticks = ticksOf(parts.join(''));
        expect(ticks).to.deep.equal(ticks.map((_, index) => (ticks[0] ?? 0) + index));
      }
    });

    it('keeps a file whose name cannot be opened, and says so', async () => {
      const console = path.join(await cleanup.directory(), 'console');
      const { primary } = await pair({ output: { console: { file: console } } });
      await rename(console, `${console}.1`);
      await mkdir(console);
      primary.process.kill('SIGHUP');
      await until('the complaint', () => primary.says(/cannot be opened anew/).length === 1);
      const ticks = () => ticksOf(fileText(`${console}.1`));
      const before = ticks().length;
      await until('it is written', () => ticks().length > before + 2);
      const first = ticks()[0] ?? 0;
      expect(ticks().every((tick, index) => tick === first + index)).to.equal(true);
    });

    it('reads the certificates anew, on both sides; those that do not fit change nothing', async () => {
      const directory = await cleanup.directory();
      const put = async (as: string, from: string) => {
        for (const kind of ['pem', 'key']) {
          await copyFile(path.join(FIXTURES, `${from}.${kind}`), path.join(directory, `${as}.${kind}`));
        }
      };
      const paths = {
        cert: path.join(directory, '{host}.pem'),
        key: path.join(directory, '{host}.key'),
        ca: path.join(FIXTURES, 'ca.pem'),
      };
      await put('alpha', 'stranger');
      await put('beta', 'stranger');
      const cluster = await clusterOf(cleanup, { file: { tls: paths } });
      const primary = await Agent.start(cleanup, 'alpha', cluster);
      await primary.listening();
      const secondary = await Agent.start(cleanup, 'beta', cluster);
      const shown = async (): Promise<string | null> => {
        const socket = tls.connect({ port: primary.port, host: '127.0.0.1', rejectUnauthorized: false });
        socket.on('error', () => undefined); // refused: we show no certificate
        await once(socket, 'secureConnect');
        const { subject } = socket.getPeerCertificate();
        socket.destroy();
        return String(subject.CN);
      };
      await until(
        'the secondary is refused',
        () => secondary.says(/no link to the primary|refused: /).length > 0,
      );
      const before = await shown();
      await copyFile(path.join(FIXTURES, 'host.pem'), path.join(directory, 'alpha.pem'));
      primary.process.kill('SIGHUP');
      await until('the complaint', () => primary.says(/certificate in use stays/).length === 1);
      expect(await shown()).to.equal(before);
      await put('alpha', 'host');
      await put('beta', 'host');
      for (const agent of [primary, secondary]) agent.process.kill('SIGHUP');
      await secondary.more('commit');
      expect(await shown()).to.not.equal(before);
    });
  });

  describe('a terminal that is gone', () => {
    /** In a terminal of its own, in the foreground; `hangUp` takes the terminal away. */
    async function inTerminal(command: readonly string[], env: NodeJS.ProcessEnv = {}) {
      const quoted = command.map((word) => `'${word}'`).join(' ');
      const ended = path.join(await cleanup.directory(), 'status');
      // A shell that passes the hang-up on, as one does, and stays to be told how the program has ended.
      const shell = [
        `exec 3<&0; ${quoted} <&3 3<&- & program=$!`,
        "trap 'kill -HUP $program' HUP",
        'wait $program; status=$?; [ $status != 129 ] || { wait $program; status=$?; }',
        `echo $status > ${ended}`,
      ].join('\n');
      const holder = spawn('script', ['--quiet', '--flush', '--command', shell, '/dev/null'], {
        stdio: ['ignore', 'pipe', 'inherit'],
        env: { ...process.env, ...env },
      });
      cleanup.add(() => holder.kill('SIGKILL'));
      const screen = { text: '' };
      holder.stdout.on('data', (piece: Buffer) => (screen.text += piece.toString()));
      const program = () => childrenOf(holder.pid ?? 0).flatMap(childrenOf);
      await until('the program is there', () => program().length > 0);
      const [pid = 0] = program();
      cleanup.add(() => isAlive(pid) && process.kill(pid, 'SIGKILL'));
      /** The shell's word for it: 128 + N by signal N. */
      const exitStatus = async (): Promise<number> => {
        await until('its end', () => fileText(ended).endsWith('\n'));
        return Number(fileText(ended));
      };
      return { pid, screen, exitStatus, hangUp: () => holder.kill('SIGKILL') };
    }

    for (const format of ['pretty', 'json']) {
      it(`ends no agent, though its console and its log (${format}) were there`, async () => {
        const cluster = await clusterOf(cleanup, { output: { console: 'stdout' } });
        const command = await commandOf(cleanup, 'alpha', { ...cluster, log: { level: 'debug', format } });
        const { pid, screen, exitStatus, hangUp } = await inTerminal([process.execPath, ...command]);
        await until('it listens', () => screen.text.includes('at work'));
        const secondary = await Agent.start(cleanup, 'beta', cluster);
        await secondary.more('commit');
        await until('its console', () => ticksOf(screen.text.replaceAll('\r', '')).length > 0);
        hangUp();
        for (let round = 0; round < 20; round++) await secondary.more('commit');
        // It logs, too.
        await secondary.kill();
        const next = await Agent.start(cleanup, 'beta', cluster);
        await next.more('commit');
        process.kill(pid, 'SIGTERM');
        expect(await exitStatus()).to.equal(0);
        await until('the secondary has heard', () => next.says(/bye shutdown/).length > 0);
        expect(next.count('failover')).to.equal(0);
      });
    }

    it('ends a job in order', async () => {
      const temporary = await cleanup.directory();
      const { pid, screen, exitStatus, hangUp } = await inTerminal(
        [process.execPath, ENTRY, 'demo', '--checkpoints', '100000', '--memory', '4MiB', '--dirty', '5'],
        { TMPDIR: temporary },
      );
      await until('it replicates', () => /epoch +\d+ │/.test(screen.text), 30_000);
      const services = childrenOf(pid);
      expect(services).to.have.length(2);
      hangUp();
      expect(await exitStatus()).to.equal(130);
      await until('the end of its services', () => !services.some(isAlive));
      expect((await readdir(temporary)).filter((name) => name.startsWith('romulus'))).to.deep.equal([]);
    });
  });
});
