// QEMU through agents: two processes, each the command that a user starts, and the primary killed.

import { expect } from 'chai';
import { cp, rm } from 'node:fs/promises';
import path from 'node:path';
import type { DemoReport } from '../../../src/cli/demo/measure.js';
import { createMemoryWitness } from '../../../src/failover/witnesses/memory.js';
import { demoDirectories, romulus } from '../../cli/support.js';
import { agentOn, WatchedHost } from '../../service/hosts.js';
import { log } from '../../service/world.js';
import { ensureGuest, GUEST_TIMEOUT_MS, guestMachine } from '../../support/qemu.js';
import { until } from '../../support/until.js';
import { Screen } from './support.js';
import { temporaryDirectory } from '../../support/temporary.js';

describe('qemu: services', function () {
  this.timeout(240_000);

  it('a host is killed, comes back and is switched over to, and the guest goes on at the next tick each time', async function () {
    this.timeout(GUEST_TIMEOUT_MS + 240_000);
    const files = await ensureGuest();
    if (!files) return this.skip();
    // The guest that the tests have made is the one that the command finds in the user's cache.
    const cache = await temporaryDirectory('romulus-test-cache-');
    const before = { ...process.env };
    try {
      const made = path.dirname(files.kernel);
      await cp(made, path.join(cache, 'romulus', path.basename(made)), { recursive: true });
      process.env['XDG_CACHE_HOME'] = cache;
      const directories = await demoDirectories();
      const { exitCode, stdout, stderr } = await romulus([
        ...['demo', '--qemu', '--json', '--checkpoints', '40'],
      ]);
      expect(exitCode, stderr).to.equal(0);
      const report = JSON.parse(stdout.trimEnd().split('\n').at(-1) ?? '') as DemoReport;
      console.log(`      ${JSON.stringify(report)}`);
      expect(report.ok).to.equal(true);
      expect(report.tickCommitted).to.be.at.least(1);
      expect(report.tickResumed).to.equal(report.tickCommitted + 1);
      expect(report.tickGoneOn).to.equal(report.tickHandedOver + 1);
      expect([report.badPages, report.outputBeforeAck]).to.deep.equal([0, 0]);
      expect(await demoDirectories()).to.deep.equal(directories);
    } finally {
      if (before['XDG_CACHE_HOME'] === undefined) delete process.env['XDG_CACHE_HOME'];
      else process.env['XDG_CACHE_HOME'] = before['XDG_CACHE_HOME'];
      await rm(cache, { recursive: true, force: true });
    }
  });

  it('a guest that shuts down ends its replication, and nothing takes over', async function () {
    const files = await ensureGuest();
    if (!files) return this.skip();
    // An address, but no network card: the guest says so and powers off.
    const hypervisor = guestMachine(files, { address: '10.0.0.2/24' });
    const screen = new Screen();
    const registers = createMemoryWitness();
    const domains = [{ name: 'web', start: 'with-standby', hypervisor }];
    const consoles = { log, openConsole: () => screen };
    const primary = new WatchedHost(agentOn('north', { port: 0, registers, domains }, consoles));
    let secondary: WatchedHost | null = null;
    try {
      await primary.service.start();
      const { port } = primary.service;
      const standby = new WatchedHost(agentOn('south', { port, registers, domains }, { log }));
      secondary = standby;
      await standby.service.start();
      await until('the end of the primary', () => primary.was('ended'), 120_000);
      expect(primary.history.filter(({ error }) => error !== null)).to.deep.equal([]);
      expect(standby.commits.length).to.be.greaterThan(1);
      expect(screen.text).to.match(/^bad configuration: /m);
      await until('the end of the secondary', () => standby.was('ended'), 10_000);
      expect(standby.failovers).to.deep.equal([]);
    } finally {
      await secondary?.service.stop();
      await primary.service.stop();
    }
  });
});
