// The table that maps libxc's contract to Romulus says the truth: what it names is there, and nothing is left out.

import { expect } from 'chai';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const source = fileURLToPath(new URL('../../../src/', import.meta.url));

interface Row {
  readonly libxc: string;
  readonly here: string;
  readonly remarks: string;
}

function rows(): Row[] {
  return readFileSync(`${source}guest/libxc-map.md`, 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('|') && !/^\|[ -]+\|[ -]+\|/.test(line) && !line.startsWith('| libxc '))
    .map((line) => {
      const [, libxc = '', here = '', remarks = ''] = line.split('|').map((cell) => cell.trim());
      return { libxc, here, remarks };
    });
}

describe('map of libxc', () => {
  for (const { libxc, here, remarks } of rows()) {
    it(`${libxc} → ${here}`, () => {
      if (here === '–') {
        expect(remarks, 'the reason why there is none').not.to.equal('');
        return;
      }
      const match = /^`([^`]+)` `([^`]+)`$/.exec(here);
      const [, file = '', name = ''] = match ?? [];
      expect(existsSync(source + file), file).to.equal(true);
      expect(new RegExp(`\\b${name}\\b`).test(readFileSync(source + file, 'utf8')), name).to.equal(true);
    });
  }

  it('leaves no op out, and no table lacks one', async () => {
    const { saveOpsFor, restoreOpsFor } = await import('../../src/guest/tables.js');
    for (const type of [1, 2]) {
      const tables = [
        ['Save operations', saveOpsFor(type)],
        ['Restore operations', restoreOpsFor(type)],
      ] as const;
      for (const [section, table] of tables) {
        const text = readFileSync(`${source}guest/libxc-map.md`, 'utf8');
        const part = text.slice(text.indexOf(`## ${section}`)).split('\n## ')[0] ?? '';
        const items = [...part.matchAll(/^\| `(\w+)`/gm)].map(([, name = '']) => name);
        expect(items).to.have.lengthOf(section === 'Save operations' ? 9 : 10);
        for (const item of items) {
          const name = item.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
          expect(Reflect.get(table, name), `${section}: ${name}`).to.be.a('function');
        }
      }
    }
  });
});
