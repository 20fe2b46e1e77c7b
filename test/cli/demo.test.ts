// The command line as a user calls it: real processes, the real machine, a real SIGKILL.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import type { DemoReport } from '../../src/cli/demo/measure.js';

const entry = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

interface Result {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs romulus to its end; `onOutput` sees all that it has printed so far, each time it prints. */
async function romulus(
  args: readonly string[],
  onOutput?: (printed: string, pid: number) => void,
): Promise<Result> {
  const child = spawn(process.execPath, [entry, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  const look = (): void => {
    if (child.pid !== undefined) onOutput?.(stdout + stderr, child.pid);
  };
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    look();
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
    look();
  });
  await once(child, 'close');
  return { exitCode: child.exitCode, stdout, stderr };
}

/** Processes whose parent is `pid`, as /proc tells. */
async function childrenOf(pid: number): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return text.split(' ').filter(Boolean).map(Number);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function demoDirectories(): Promise<string[]> {
  return (await readdir(tmpdir())).filter((name) => name.startsWith('romulus-demo-')).sort();
}

describe('romulus demo', function () {
  this.timeout(60_000);

  it('loses its primary and goes on at the next tick', async () => {
    const before = await demoDirectories();
    const { exitCode, stdout, stderr } = await romulus([
      'demo',
      '--json',
      '--checkpoints',
      '40',
      '--memory',
      '32MiB',
    ]);
    expect(exitCode, stderr).to.equal(0);
    const report = JSON.parse(stdout.trimEnd().split('\n').at(-1) ?? '') as DemoReport;
    expect(report.ok).to.equal(true);
    expect(report.epochsCommitted).to.be.at.least(20);
    expect(report.tickCommitted).to.be.at.least(0);
    expect(report.tickResumed).to.equal(report.tickCommitted + 1);
    expect(report.badPages).to.equal(0);
    expect(report.outputBeforeAck).to.equal(0);
    expect(report.pauseMs.p50).to.be.greaterThan(0);
    expect(report.pauseMs.p99).to.be.at.least(report.pauseMs.p50);
    expect(report.detectMs).to.be.greaterThan(0);
    expect(report.takeoverMs).to.be.greaterThan(0);
    expect(await demoDirectories()).to.deep.equal(before);
  });

  it('ends cleanly at Ctrl-C, in the middle of the replication', async () => {
    const before = await demoDirectories();
    let services: Promise<number[]> | undefined;
    const { exitCode, stdout } = await romulus(['demo', '--checkpoints', '100000'], (printed, pid) => {
      if (services || !/epoch +\d+ │/.test(printed)) return;
      services = childrenOf(pid).then((pids) => {
        process.kill(pid, 'SIGINT');
        return pids;
      });
    });
    expect(exitCode).to.equal(130);
    expect(stdout).to.match(/epoch +\d+ │/);
    const pids = (await services) ?? [];
    expect(pids).to.have.lengthOf(2);
    expect(pids.filter(isAlive)).to.deep.equal([]);
    expect(await demoDirectories()).to.deep.equal(before);
  });
});

describe('romulus: wrong use', function () {
  this.timeout(20_000);

  const cases: [string[], RegExp][] = [
    [['no-such-verb'], /unknown command/],
    [['demo', '--interval', 'soon'], /expected a whole number from 1 to 60000/],
    [['demo', '--memory', '63MiB'], /memory: '63MiB' given, expected/],
    [['demo', '--checkpoints', '10', '--kill-at', '10'], /--kill-at 10 is past the end/],
    [['primary'], /--config/],
    [['primary', '--config', '/no/such/file'], /\/no\/such\/file/],
    [['secondary', '--config', '/no/such/file'], /\/no\/such\/file/],
    [['restore', '/no/such/file'], /\/no\/such\/file/],
  ];
  for (const [args, message] of cases) {
    it(`romulus ${args.join(' ')} says what is wrong and exits with 2`, async () => {
      const { exitCode, stderr, stdout } = await romulus(args);
      expect(stderr).to.match(message);
      expect(stdout).to.equal('');
      expect(exitCode).to.equal(2);
    });
  }
});
