// What docs/ says of the house is so: the files that it names are there, and each of the ways enters no file twice.

import { existsSync, readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';

const root = fileURLToPath(new URL('../../', import.meta.url));
const read = (file: string) => readFileSync(path.join(root, file), 'utf8');
const architecture = read('docs/ARCHITECTURE.md');

/** Paths in src/ (and docs/, test/ where they are written so), as they are named between backquotes. */
function namedFiles(text: string): string[] {
  return [...text.matchAll(/`([\w./-]+\/[\w.-]+\.[a-z]+)`/g)].map(([, file = '']) => file);
}

const isThere = (file: string) => ['', 'src'].some((room) => existsSync(path.join(root, room, file)));

/** The numbered steps of a chapter. */
function stepsOf(chapter: string): string[] {
  const text = architecture.split(/^## /m).find((one) => one.startsWith(`${chapter}\n`)) ?? '';
  return text.split('\n').filter((line) => /^\d+\. /.test(line));
}

describe('docs', () => {
  const documents = [
    'README.md',
    ...readdirSync(path.join(root, 'docs'))
      .filter((name) => name.endsWith('.md'))
      .map((name) => `docs/${name}`),
    ...readdirSync(path.join(root, 'docs/decisions')).map((name) => `docs/decisions/${name}`),
  ];
  for (const document of documents) {
    it(`${document} names files that are there`, () => {
      const beside = path.dirname(document);
      const links = [...read(document).matchAll(/\]\(([\w./-]+\.md)\)/g)].map(([, file = '']) => file);
      expect(links.filter((file) => !existsSync(path.join(root, beside, file)))).to.deep.equal([]);
      const files = namedFiles(read(document)).filter((file) => !/^(dist|node_modules)\//.test(file));
      expect(files.filter((file) => !isThere(file))).to.deep.equal([]);
    });
  }

  for (const way of ['page', 'acknowledgement', 'failover', 'switchover']) {
    it(`the way: ${way}, names one file a step, in order, and none twice`, () => {
      const steps = stepsOf(`The way of ${way === 'acknowledgement' ? 'an' : 'a'} ${way}`);
      expect(steps.length).to.be.greaterThan(10);
      const files = steps.map((step, index) => {
        const named = /^(\d+)\. `([\w./-]+\.ts)`: /.exec(step);
        expect(Number(named?.[1]), step).to.equal(index + 1);
        return named?.[2] ?? '';
      });
      expect(new Set(files).size, files.join(' ')).to.equal(files.length);
      expect(files.filter((file) => !existsSync(path.join(root, 'src', file)))).to.deep.equal([]);
    });
  }

  it('the floor plan has every room, on its floor', () => {
    const plan = /```\n(cli [\s\S]*?)```/.exec(architecture)?.[1] ?? '';
    const rooms = readdirSync(path.join(root, 'src'), { withFileTypes: true }).filter((entry) =>
      entry.isDirectory(),
    );
    const named = plan
      .split('\n')
      .flatMap((line) => line.split('│').map((part) => part.trim().split(' ')[0]));
    for (const { name } of rooms) expect(named).to.include(name);
  });

  it('every decision is in the list', () => {
    const list = read('docs/decisions/README.md');
    for (const name of readdirSync(path.join(root, 'docs/decisions'))) {
      if (name !== 'README.md') expect(list).to.include(`(${name})`);
    }
  });
});
