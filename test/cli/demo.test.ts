// The command line as a user calls it: real processes, the real machine, a real SIGKILL.

import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import type { DemoReport } from '../../src/cli/demo/measure.js';
import { childrenOf, isAlive } from '../support/processes.js';
import { promtool, PROMTOOL_TIMEOUT_MS } from '../support/promtool.js';
import { until } from '../support/until.js';
import { demoDirectories, romulus } from './support.js';

describe('romulus demo', function () {
  this.timeout(60_000);

  it('loses a host, gets it back and is switched over, and goes on at the next tick each time', async () => {
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
    expect(report.tickHandedOver).to.be.at.least(report.tickResumed);
    expect(report.tickGoneOn).to.equal(report.tickHandedOver + 1);
    expect(report.badPages).to.equal(0);
    expect(report.outputBeforeAck).to.equal(0);
    expect(report.pauseMs.p50).to.be.greaterThan(0);
    expect(report.pauseMs.p99).to.be.at.least(report.pauseMs.p50);
    expect(report.detectMs).to.be.greaterThan(0);
    expect(report.takeoverMs).to.be.greaterThan(0);
    expect(report.reprotectMs).to.be.greaterThan(0);
    expect(report.switchoverMs).to.be.greaterThan(0);
    expect(await demoDirectories()).to.deep.equal(before);
  });

  it('ends cleanly at Ctrl-C, in the middle of the replication', async () => {
    const before = await demoDirectories();
    let agents: number[] | undefined;
    const { exitCode, stdout } = await romulus(['demo', '--checkpoints', '100000'], (printed, pid) => {
      if (agents || !/epoch +\d+ │/.test(printed)) return;
      agents = childrenOf(pid);
      process.kill(pid, 'SIGINT');
    });
    expect(exitCode).to.equal(130);
    expect(stdout).to.match(/epoch +\d+ │/);
    const pids = agents ?? [];
    expect(pids).to.have.lengthOf(2);
    expect(pids.filter(isAlive)).to.deep.equal([]);
    expect(await demoDirectories()).to.deep.equal(before);
  });
});

describe('romulus demo, killed itself', function () {
  this.timeout(60_000);

  it('leaves no agent behind', async () => {
    let agents: number[] | undefined;
    await romulus(['demo', '--checkpoints', '100000'], (printed, pid) => {
      if (agents || !/epoch +\d+ │/.test(printed)) return;
      agents = childrenOf(pid);
      process.kill(pid, 'SIGKILL');
    });
    const pids = agents ?? [];
    expect(pids).to.have.lengthOf(2);
    await until('the end of the agents', () => !pids.some(isAlive));
    // Nobody was left to remove it.
    for (const name of await demoDirectories()) await rm(join(tmpdir(), name), { recursive: true });
  });
});

describe('romulus demo: metrics of both hosts', function () {
  this.timeout(PROMTOOL_TIMEOUT_MS);

  it('pass promtool while it runs', async function () {
    if ((await promtool(['--version'])) === null) this.skip();
    let scrapes: Promise<string[]> | undefined;
    const { exitCode, stdout } = await romulus(
      ['demo', '--checkpoints', '40', '--memory', '32MiB'],
      (printed) => {
        if (scrapes || !/epoch +\d+ │/.test(printed)) return;
        const addresses = printed.match(/http:\/\/127\.0\.0\.1:\d+\/metrics/g) ?? [];
        scrapes = Promise.all(addresses.map(async (address) => (await fetch(address)).text()));
      },
    );
    expect(exitCode, stdout).to.equal(0);
    const [alpha = '', beta = ''] = (await scrapes) ?? [];
    expect(alpha).to.match(/romulus_checkpoints_total\{domain="demo"\} [1-9]/);
    expect(beta).to.match(/romulus_epoch_committed\{domain="demo"\} \d/);
    for (const metrics of [alpha, beta]) {
      const checked = await promtool(['check', 'metrics'], metrics);
      expect(checked?.output).to.equal('');
      expect(checked?.code).to.equal(0);
    }
  });
});

describe('romulus: wrong use', function () {
  this.timeout(20_000);

  const cases: [string[], RegExp][] = [
    [['no-such-verb'], /unknown command/],
    [['demo', '--interval', 'soon'], /expected a whole number from 1 to 60000/],
    [['demo', '--memory', '63MiB'], /memory: '63MiB' given, expected/],
    [['demo', '--checkpoints', '10', '--kill-at', '10'], /--kill-at 10 is past the end/],
    [['agent'], /--config/],
    [['agent', '--config', '/no/such/file'], /\/no\/such\/file/],
    [['status', '--config', '/no/such/file'], /\/no\/such\/file/],
    [['start', 'web', '--config', '/no/such/file'], /whoever knows that this is not so says --force/i],
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
