// A progress bar on a terminal; elsewhere a line for every tenth.

export class Progress {
  #shown = -1;

  constructor(total, out = process.stdout) {
    this.total = total;
    this.out = out;
  }

  show(done) {
    const share = this.total === 0 ? 1 : done / this.total;
    if (this.out.isTTY) {
      const width = 40;
      const filled = Math.round(share * width);
      this.out.write(`\r  ${'█'.repeat(filled)}${'░'.repeat(width - filled)} ${done}/${this.total} packages`);
      if (done === this.total) this.out.write('\n');
      return;
    }
    const tenth = Math.floor(share * 10);
    if (tenth === this.#shown) return;
    this.#shown = tenth;
    this.out.write(`  ${done}/${this.total} packages\n`);
  }
}

export function table(rows) {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => String(row[column]).length)));
  const line = (row) => `  ${row.map((cell, column) => (typeof cell === 'number' ? String(cell).padStart(widths[column]) : String(cell).padEnd(widths[column]))).join('   ')}`;
  const [head, ...body] = rows;
  return [line(head), `  ${widths.map((width) => '─'.repeat(width)).join('   ')}`, ...body.map(line)].join('\n');
}
