// The real thing: an x86 machine in a process that is killed goes on in this one, at the very next octet of its output.

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { Child } from './child.js';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import { TestSecondary, fileText } from './world.js';

const embedded = { memory: '16MiB', guest: { dirtyPages: 50, workingSetPages: 256, tickMs: 10 } };

/** The ticks of a text, which must follow one another without a gap and without a bad page. */
function ticksOf(text: string): number[] {
  const lines = text.split('\n').filter((line) => line.startsWith('tick '));
  const ticks = lines.slice(0, text.endsWith('\n') ? undefined : -1).map((line) => {
    const match = /^tick (\d+) ok$/.exec(line);
    expect(match, `"${line}" is a good tick`).not.to.equal(null);
    return Number(match?.[1]);
  });
  ticks.forEach((tick, i) => expect(tick).to.equal((ticks[0] ?? 0) + i));
  return ticks;
}

describe('service: the embedded machine', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  for (let round = 1; round <= 2; round++) {
    it(`its host is killed, round ${round}: it goes on at the next octet`, async () => {
      const directory = await cleanup.directory();
      const output = { console: { file: `${directory}/console` }, tap: `${directory}/tap` };
      const registers = await cleanup.directory();
      const child = Child.primary({
        registers,
        embedded,
        output,
        checkpoint: { intervalMs: 20, slab: '8MiB' },
      });
      cleanup.add(() => child.kill());
      await until('the primary listens', () => child.port > 0);
      const secondary = new TestSecondary(child, { embedded });
      cleanup.add(() => secondary.service.stop());
      await secondary.start();
      // By the register nobody may take over before that.
      const generations = () => readdirSync(registers).filter((name) => !name.startsWith('.'));
      const isPaired = () => generations().some((name) => fileText(join(registers, name)).includes('paired'));
      await until('it is paired', isPaired, 30_000);
      await until('ticks are committed', () => (secondary.commits.at(-1)?.outputBytes ?? 0) > 400, 30_000);
      child.process.kill('SIGKILL');
      await until('failover', () => secondary.failovers.length === 2);
      await until('ticks', () => secondary.output().split('\n').length > 10);

      const committed = secondary.commits.at(-1)?.outputBytes ?? 0;
      const console = fileText(output.console.file);
      expect(console.length).to.be.at.most(committed);
      // What was on its way to it when its host was killed is written yet.
      await until('the tap has all', () => fileText(output.tap).length >= committed);
      const said = fileText(output.tap).slice(0, committed);
      expect(said.startsWith(console)).to.equal(true);
      const before = ticksOf(said);
      const all = ticksOf(said + secondary.output());
      expect(all.length).to.be.greaterThan(before.length + 5);
    });
  }
});
