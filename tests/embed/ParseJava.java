import com.sun.source.tree.CompilationUnitTree;
import com.sun.source.tree.Tree;
import com.sun.source.util.JavacTask;
import com.sun.source.util.TreeScanner;
import java.io.File;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;
import javax.tools.Diagnostic;
import javax.tools.DiagnosticCollector;
import javax.tools.JavaCompiler;
import javax.tools.JavaFileObject;
import javax.tools.StandardJavaFileManager;
import javax.tools.ToolProvider;

/** For each file of a folder, a line: its name, and the kinds of its syntax tree's nodes or what javac's parser says. */
public final class ParseJava {
    public static void main(String[] arguments) throws Exception {
        PrintStream out = new PrintStream(System.out, false, "UTF-8");
        JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
        File[] files = new File(arguments[0]).listFiles();
        Arrays.sort(files);
        for (File file : files) {
            DiagnosticCollector<JavaFileObject> faults = new DiagnosticCollector<>();
            StringBuilder kinds = new StringBuilder();
            try (StandardJavaFileManager manager = compiler.getStandardFileManager(faults, null, StandardCharsets.UTF_8)) {
                List<String> options = Arrays.asList("-proc:none");
                JavacTask task = (JavacTask) compiler.getTask(
                        null, manager, faults, options, null, manager.getJavaFileObjects(file));
                for (CompilationUnitTree unit : task.parse()) {
                    new TreeScanner<Void, Void>() {
                        @Override
                        public Void scan(Tree tree, Void nothing) {
                            kinds.append(tree == null ? "()" : "(" + tree.getKind());
                            super.scan(tree, nothing);
                            kinds.append(tree == null ? "" : ")");
                            return null;
                        }
                    }.scan(unit, null);
                }
            }
            for (Diagnostic<?> fault : faults.getDiagnostics()) {
                if (fault.getKind() == Diagnostic.Kind.ERROR) {
                    kinds.setLength(0);
                    kinds.append("error ").append(fault.toString().replace('\n', ' '));
                }
            }
            out.println(file.getName() + "\t" + kinds);
        }
        out.flush();
    }
}
